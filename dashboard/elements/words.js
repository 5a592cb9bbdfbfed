// Texts in both languages, and numbers and times as people of that language write them.
// The language is an attribute of <html>; who shows text listens to "language" on `document`.

const WORDS = {
  search: ["장치, 태그, 라인 검색", "Search devices, tags, lines"],
  all: ["전체", "All"],
  alarm: ["경보", "Alarms"],
  warning: ["주의", "Warnings"],
  stale: ["응답 없음", "Silent"],
  ok: ["정상", "OK"],
  above_hi: ["상한 초과", "Above limit"],
  below_lo: ["하한 미달", "Below limit"],
  near_hi: ["상한 근접", "Near upper limit"],
  near_lo: ["하한 근접", "Near lower limit"],
  silent: ["응답 없음", "Silent"],
  bad: ["읽기 실패", "Not readable"],
  hi: ["상한", "hi"],
  lo: ["하한", "lo"],
  now: ["방금 전", "just now"],
  seconds: ["{}초", "{} s"],
  minutes: ["{}분", "{} min"],
  hours: ["{}시간", "{} h"],
  days: ["{}일", "{} d"],
  ago: ["{} 전", "{} ago"],
  never: ["값 없음", "no value yet"],
  alarms_now: ["지금 벗어난 값", "Out of limits now"],
  more: ["외 {}건", "{} more"],
  language: ["English로 보기", "한국어로 보기"],
  dark: ["어두운 화면", "Dark theme"],
  light: ["밝은 화면", "Light theme"],
  source: ["데이터 출처", "Data source"],
  store: ["내장 저장소", "Embedded store"],
  edge: ["엣지 DB", "Edge database"],
  remote: ["원격 DB", "Remote database"],
  no_devices: ["장치가 없습니다", "No devices yet"],
  no_devices_why: [
    "에이전트가 읽는 주소 맵에 행이 있으면 5초 안에 카드가 나타납니다.",
    "As soon as the agent's address map has rows, their cards appear here within 5 seconds.",
  ],
  no_match: ["조건에 맞는 장치가 없습니다", "No device matches"],
  no_match_why: ["검색어나 필터를 지워 보세요.", "Clear the search or a filter."],
  reset: ["모두 보기", "Show all"],
  filters: ["필터", "Filters"],
  last_hour: ["지난 60분", "last 60 minutes"],
  no_history: ["지난 60분 기록 없음", "no record of the last 60 minutes"],
  server_away: ["대시보드 서버와 연결이 끊겼습니다", "The dashboard's server does not answer"],
  agent_away: ["에이전트가 응답하지 않습니다", "The agent does not answer"],
  shown_from: ["{} 값을 보고 있습니다", "what you see is from {}"],
  history_away: ["이력을 읽을 수 없습니다", "The history can't be read"],
  system: ["시스템 보기", "See the system"],
  not_well: ["시스템 확인이 필요합니다", "The system needs a look"],
  loading: ["불러오는 중", "Loading"],
};

const column = () => (document.documentElement.lang === "en" ? 1 : 0);

/** A text of the page's language; `{}` in it becomes `value`. */
export function say(word, value) {
  const text = WORDS[word]?.[column()] ?? word;
  return value === undefined ? text : text.replace("{}", value);
}

/** A text that the server tells: its Korean stands beside it as `{name}_ko`, or null. */
export const told = (body, name) => (column() === 0 && body[`${name}_ko`]) || body[name];

/** More texts, of a page's own. */
export const addWords = (words) => Object.assign(WORDS, words);

export function setLanguage(language) {
  document.documentElement.lang = language;
  try {
    localStorage.setItem("language", language);
  } catch {
    // A browser that stores nothing asks again next time.
  }
  document.dispatchEvent(new Event("language"));
}

export const otherLanguage = () => (column() ? "ko" : "en");

const DIGITS_MAX = 6;

/** Digits after the point that show a step of a thousandth of `span`, as instruments do. */
export function digitsFor(span) {
  if (!(span > 0) || !isFinite(span)) return 2;
  return Math.min(Math.max(Math.ceil(-Math.log10(span / 1000) - 0.5), 0), DIGITS_MAX);
}

/** A value for people; `digits` after the point. Both languages write it alike, and making an
 * Intl.NumberFormat takes longer than all the cards of a screen. */
export function number(value, digits) {
  if (value === null || value === undefined || Number.isNaN(value)) return "–";
  if (value !== 0 && (Math.abs(value) >= 1e12 || Math.abs(value) < 10 ** -DIGITS_MAX)) {
    return value.toExponential(3);
  }
  const [whole, part] = value.toFixed(digits).split(".");
  const grouped = whole.replace(/\d(?=(\d{3})+$)/g, "$&,");
  return part ? `${grouped}.${part}` : grouped;
}

/** "3 min" of a duration. */
export function duration(ms) {
  const seconds = Math.max(Math.round(ms / 1000), 0);
  if (seconds < 60) return say("seconds", seconds);
  if (seconds < 3600) return say("minutes", Math.floor(seconds / 60));
  if (seconds < 172800) return say("hours", Math.floor(seconds / 3600));
  return say("days", Math.floor(seconds / 86400));
}

/** "3 s ago"; what came within the last seconds came just now. */
export function ago(ms) {
  return ms < 2500 ? say("now") : say("ago", duration(ms));
}
