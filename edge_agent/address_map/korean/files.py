"""Problems of the file, its header and its rows as a whole: table.py, workbook.py, check.py."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part
from edge_agent.text.korean.system import FILES as SYSTEM_FILES

OF_THE_SYSTEM: Final[tuple[Entry, ...]] = tuple(
    part(entry.english, entry.korean) for entry in SYSTEM_FILES
)
"""Why the system refuses a file, in its own words."""

FILES: Final[tuple[Entry, ...]] = (
    *OF_THE_SYSTEM,
    # the file
    Entry("this is a folder; name the file in it", "폴더입니다. 그 안의 파일을 지정하세요"),
    Entry(
        "this is not a regular file; name a .csv or .xlsx file",
        "일반 파일이 아닙니다. .csv 또는 .xlsx 파일을 지정하세요",
    ),
    Entry(
        "the file has {found} bytes, allowed are {most}",
        "파일 크기가 {found}바이트입니다. 허용: {most}바이트 이하",
    ),
    Entry("there is no such file; check the path", "파일이 없습니다. 경로를 확인하세요"),
    Entry("the file can't be read: {reason!t}", "파일을 읽을 수 없습니다: {reason}"),
    Entry("would be read back as {back!r}", "다시 읽으면 값이 달라집니다: {back}"),
    # what it is
    Entry(
        "this is an Excel 97-2003 workbook (.xls) or one with a password;"
        " save it without a password as 'Excel Workbook (*.xlsx)' or 'CSV UTF-8 (*.csv)'",
        "Excel 97-2003 통합 문서(.xls)이거나 암호가 걸린 파일입니다."
        " 암호 없이 'Excel 통합 문서 (*.xlsx)' 또는"
        " 'CSV UTF-8(쉼표로 분리) (*.csv)' 형식으로 저장하세요",
    ),
    Entry(
        "this is not a text file, or it is UTF-16 without a byte order mark; allowed: UTF-8,"
        " UTF-16 with a byte order mark, CP949 and .xlsx; {advice!t}",
        "텍스트 파일이 아니거나 BOM이 없는 UTF-16입니다."
        " 허용: UTF-8, BOM이 있는 UTF-16, CP949, .xlsx. {advice}",
    ),
    Entry(
        "the file is in a Western encoding (Windows-1252 or the like), as Excel's plain 'CSV'"
        " writes it; {advice!t}",
        "서유럽 인코딩(Windows-1252 등)으로 저장된 파일입니다."
        " 서유럽 언어로 설정된 PC의 Excel에서 일반 'CSV' 형식으로 저장하면 이렇게 됩니다. {advice}",
    ),
    Entry(
        "the file is not {promise!t}: it can't be read from the bytes {found} on; {advice!t}",
        "파일의 인코딩이 잘못되었습니다(필요한 인코딩: {promise})."
        " 다음 바이트부터 읽을 수 없습니다: {found}. {advice}",
    ),
    part("{encoding}, which its byte order mark promises", "BOM에 표시된 {encoding}"),
    part(
        "UTF-8, UTF-16 with a byte order mark, or CP949",
        "UTF-8, BOM이 있는 UTF-16, CP949 중 하나",
    ),
    part(
        "in Excel, save it as 'CSV UTF-8 (Comma delimited) (*.csv)'",
        "Excel에서 'CSV UTF-8(쉼표로 분리) (*.csv)' 형식으로 저장하세요",
    ),
    # a workbook
    Entry(
        "the workbook unpacks to {found} bytes, allowed are {most};"
        " save the sheet with the map as a workbook of its own",
        "통합 문서의 압축을 풀면 {found}바이트입니다(허용: {most}바이트 이하)."
        " 맵이 있는 시트만 새 통합 문서로 저장하세요",
    ),
    Entry("the workbook has no sheet with cells", "통합 문서에 내용이 있는 시트가 없습니다"),
    Entry(
        "this is not a readable Excel workbook; open it in Excel and save it again as"
        " 'CSV UTF-8 (*.csv)' or 'Excel Workbook (*.xlsx)'",
        "읽을 수 있는 Excel 통합 문서가 아닙니다. Excel에서 연 뒤 'CSV UTF-8(쉼표로 분리) (*.csv)'"
        " 또는 'Excel 통합 문서 (*.xlsx)' 형식으로 다시 저장하세요",
    ),
    Entry(
        "the formula in this cell has an error; write the value itself",
        "셀의 수식에 오류가 있습니다. 수식 대신 값을 쓰세요",
    ),
    Entry(
        "Excel has turned this cell into a date or time; format the column as Text"
        " and write the value again",
        "Excel이 이 셀을 날짜나 시간으로 바꾸었습니다."
        " 열의 셀 서식을 '텍스트'로 바꾸고 값을 다시 쓰세요",
    ),
    Entry(
        "a number cell can't tell {short} from {long}0; format the column as Text"
        " and write the address again",
        "숫자 셀에서는 구별되지 않습니다: {short} / {long}0."
        " 열의 셀 서식을 '텍스트'로 바꾸고 주소를 다시 쓰세요",
    ),
    Entry(
        "the file holds a formula here and not its value; open the workbook in Excel and save it,"
        " or paste the value in place of the formula",
        "파일에 수식만 있고 계산된 값이 없습니다. 통합 문서를 Excel에서 열어 저장하거나,"
        " 수식 대신 값을 붙여넣으세요",
    ),
    Entry(
        "the cell is merged with {place}; unmerge them and write the value into each",
        "병합된 셀입니다({place}). 병합을 해제하고 셀마다 값을 쓰세요",
    ),
    # the header
    Entry("the file is empty; {header!t}", "빈 파일입니다. {header}"),
    Entry("this is no header; {header!t}", "머리글 행이 아닙니다. {header}"),
    Entry(
        "the header stands in line {line}; delete the lines above it",
        "머리글은 {line}행에 있습니다. 그 위의 행을 모두 지우세요",
    ),
    Entry(
        "the first sheet has no header, and sheet {title!r} has one; move that sheet before all"
        " others, hidden ones too",
        "첫 시트에 머리글 행이 없습니다. 머리글이 있는 시트: {title}."
        " 그 시트를 숨겨진 시트보다도 앞, 맨 앞으로 옮기세요",
    ),
    part(
        "the first line must name the columns: {columns}",
        "첫 행에 열 이름이 있어야 합니다: {columns}",
    ),
    Entry(
        "the column stands twice, as number {first} and {second}; delete one of them",
        "같은 열이 두 번 있습니다({first}번째와 {second}번째). 하나를 지우세요",
    ),
    Entry(
        "column number {number} has no name; name it or delete it; {known!t}",
        "{number}번째 열에 이름이 없습니다. 이름을 쓰거나 열을 지우세요. {known}",
    ),
    Entry("unknown column; {advice!t}", "알 수 없는 열입니다. {advice}"),
    part("write {column}", "이렇게 쓰세요: {column}"),
    part("known columns: {columns}", "쓸 수 있는 열: {columns}"),
    Entry(
        "the column is missing; add it to the header ({about!t})",
        "필요한 열이 없습니다. 머리글 행에 추가하세요({about})",
    ),
    part(
        "plant or building; part of the topic and of the primary key",
        "공장이나 건물. 토픽과 기본 키의 일부",
    ),
    part(
        "production line of the device; one device belongs to one line",
        "장치가 있는 생산 라인. 한 장치는 한 라인에만 속함",
    ),
    part("the machine a dashboard shows as one card", "대시보드에 카드 하나로 보이는 설비"),
    part(
        "name of the value; unique within its site and device",
        "값의 이름. 같은 사이트와 장치 안에서 중복되면 안 됨",
    ),
    part("how the device is read, for example modbus", "장치를 읽는 프로토콜, 예: modbus"),
    part(
        "socket or serial line, for example tcp://10.0.0.5:502; devices may share it",
        "소켓 또는 시리얼 포트, 예: tcp://10.0.0.5:502. 여러 장치가 함께 쓸 수 있음",
    ),
    part(
        "the device's number on its connection, 0 to 255; empty means 1",
        "연결 안의 장치 번호(국번), 0~255. 비우면 1",
    ),
    part(
        "where the value lies, in the protocol's own syntax",
        "값이 있는 위치. 표기법은 프로토콜마다 다름",
    ),
    part(
        "how the raw value is laid out, for example FLOAT32",
        "원시 값의 데이터 형식, 예: FLOAT32",
    ),
    part(
        "value = raw x scale + offset; empty means 1",
        "값 = 원시 값 × scale + offset. 비우면 1",
    ),
    part(
        "added after scaling, in the value's unit; empty means 0",
        "scale을 곱한 뒤 더하는 값(값과 같은 단위). 비우면 0",
    ),
    part(
        "how often the value is read, in milliseconds, from 200",
        "값을 읽는 주기(밀리초), 200 이상",
    ),
    part("engineering unit of the value; may be empty", "값의 단위. 비워도 됨"),
    part(
        "highest normal value, in the value's unit; empty means no limit",
        "정상 범위의 상한(값과 같은 단위). 비우면 제한 없음",
    ),
    part(
        "lowest normal value, in the value's unit; empty means no limit",
        "정상 범위의 하한(값과 같은 단위). 비우면 제한 없음",
    ),
    # a row
    Entry(
        "a cell is longer than {chars} characters; most likely a quote that opens here is never"
        " closed",
        "셀이 {chars}자보다 깁니다. 여기서 연 따옴표가 닫히지 않은 것 같습니다",
    ),
    Entry(
        "the quotes do not pair up; a cell that holds a quote is written in quotes with that"
        ' quote doubled: "2"" pipe"',
        "따옴표의 짝이 맞지 않습니다. 따옴표가 든 셀은 전체를 따옴표로 묶고"
        ' 안의 따옴표를 두 번 쓰세요: "2"" pipe"',
    ),
    Entry(
        "the row has {cells!t}, the header has {width}; {advice!t}",
        "셀 수가 맞지 않습니다: 이 행 {cells}, 머리글 행 {width}개. {advice}",
    ),
    part("1 cell", "1개"),
    part("{count} cells", "{count}개"),
    part(
        "an empty cell needs its separator {delimiter!r} too",
        "빈 셀에도 구분 기호가 필요합니다: {delimiter}",
    ),
    part(
        "a comma within a number splits its cell in two: write 0.1 or 1200, and put text with"
        " commas in quotes",
        "숫자 안의 쉼표가 셀을 둘로 나눕니다."
        " 0.1이나 1200처럼 쓰고, 쉼표가 든 텍스트는 따옴표로 묶으세요",
    ),
    part(
        "no column name stands above {beyond!r}; delete it, or move it to a column description;"
        " text with commas stands in quotes",
        "열 이름이 없는 셀입니다: {beyond}. 지우거나 description 열로 옮기세요."
        " 쉼표가 든 텍스트는 따옴표로 묶으세요",
    ),
    part(
        "no column name stands above {beyond!r}; delete it, or move it to a column description",
        "열 이름이 없는 셀입니다: {beyond}. 지우거나 description 열로 옮기세요",
    ),
    Entry(
        "the file has a header and no rows; add one row per tag",
        "머리글 행만 있습니다. 태그마다 한 행씩 추가하세요",
    ),
    # rows beside each other
    Entry(
        "device {device} belongs to line {line!r} since line {at} of the file; a device belongs"
        " to one line; write {again!r}",
        "장치 {device}의 라인이 앞의 행과 다릅니다({at}행: {line})."
        " 한 장치는 한 라인에만 속합니다. 이렇게 쓰세요: {again}",
    ),
    Entry(
        "{key} stands on line {at} already; site, device and tag together must be unique;"
        " rename or delete one of the two",
        "{at}행에 이미 있습니다: {key}. 사이트, 장치, 태그의 조합은 중복되면 안 됩니다."
        " 두 행 중 하나에서 이름을 바꾸거나 그 행을 지우세요",
    ),
)
"""In the order of the code."""
