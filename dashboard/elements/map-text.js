// The lines of a map's file as text, to show a problem where it stands. Pure.
//
// It reads as the agent does (edge_agent/address_map/table.py), without its care: a row that it
// can't take apart is shown without a mark, a file that it can't read is not shown.

const TEXT_BYTES_MAX = 8e6; // 50,000 rows; of a larger file the list of problems is enough
const DELIMITERS = [",", ";", "\t"];

/** The lines of a file with their marks, or null where it is no text that can be read. */
export function textOf(bytes) {
  const data = new Uint8Array(bytes);
  if (data.length > TEXT_BYTES_MAX || (data[0] === 0x50 && data[1] === 0x4b)) return null; // a workbook
  const text = decode(data);
  return text === null ? null : new FileText(text.split(/\r\n?|\n/));
}

function decode(data) {
  const utf16 = { "255 254": "utf-16le", "254 255": "utf-16be" }[`${data[0]} ${data[1]}`];
  for (const encoding of utf16 ? [utf16] : ["utf-8", "euc-kr"]) {
    try {
      return new TextDecoder(encoding, { fatal: true }).decode(data);
    } catch {
      // Another encoding, or none.
    }
  }
  return null;
}

class FileText {
  constructor(lines) {
    this.lines = lines;
    const first = /^"?sep=[,;\t]"?\s*$/.test(lines[0]) ? 1 : 0;
    const header = lines[first] ?? "";
    const count = (delimiter) => header.split(delimiter).length;
    this.delimiter = DELIMITERS.reduce((best, one) => (count(one) > count(best) ? one : best));
    this.columns = (cellsOf(header, this.delimiter) ?? []).map(([start, end]) => plain(header.slice(start, end)));
  }

  /** Lines around one: [number, text] of each that is there. */
  around(number, margin) {
    const found = [];
    for (let at = Math.max(number - margin, 1); at <= Math.min(number + margin, this.lines.length); at += 1) {
      if (this.lines[at - 1].trim() || at === number) found.push([at, this.lines[at - 1]]);
    }
    return found;
  }

  /** Where the cells of these columns lie in a line: [start, end], in order. */
  marks(number, columns) {
    const cells = cellsOf(this.lines[number - 1] ?? "", this.delimiter);
    if (!cells) return [];
    const wanted = new Set(columns.map(plain));
    return cells.filter((_, place) => wanted.has(this.columns[place]));
  }
}

const plain = (text) => text.replaceAll('"', "").trim().toLowerCase();

/** Start and end of each cell; null for a line in which a quoted cell does not end. */
export function cellsOf(line, delimiter) {
  const cells = [];
  let [start, isQuoted] = [0, false];
  for (let at = 0; at < line.length; at += 1) {
    if (line[at] === '"') isQuoted = !isQuoted;
    else if (line[at] === delimiter && !isQuoted) {
      cells.push([start, at]);
      start = at + 1;
    }
  }
  if (isQuoted) return null;
  return [...cells, [start, line.length]];
}
