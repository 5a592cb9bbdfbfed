"""Problems of single cells: cells.py, row.py."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

ROWS: Final[tuple[Entry, ...]] = (
    # whatever the column
    Entry("the cell is empty; write {allowed!t}", "빈 셀입니다. 필요한 값: {allowed}"),
    Entry("below {limit}; allowed: {allowed!t}", "{limit}보다 작습니다. 허용: {allowed}"),
    Entry("above {limit}; allowed: {allowed!t}", "{limit}보다 큽니다. 허용: {allowed}"),
    Entry("too large; allowed: {allowed!t}", "너무 큽니다. 허용: {allowed}"),
    Entry("allowed: {allowed!t}", "허용: {allowed}"),
    part("; write {plain}", ". 이렇게 쓰세요: {plain}"),
    part(
        "; write {grouped}, or {decimal} if the comma is a decimal sign",
        ". 이렇게 쓰세요: {grouped}(쉼표가 소수점이면 {decimal})",
    ),
    # what is allowed
    part(
        "text of at most {chars} characters without / + #",
        "{chars}자 이하의 텍스트(/ + # 제외)",
    ),
    part("text of at most {chars} characters", "{chars}자 이하의 텍스트"),
    part("text of at most {chars} characters, or empty", "{chars}자 이하의 텍스트, 비워도 됨"),
    part("the name of a protocol, for example modbus", "프로토콜 이름, 예: modbus"),
    part(
        "a connection of at most {chars} characters, for example tcp://10.0.0.5:502",
        "{chars}자 이하의 연결 주소, 예: tcp://10.0.0.5:502",
    ),
    part(
        "an address of at most {chars} characters, for example 40001",
        "{chars}자 이하의 주소, 예: 40001",
    ),
    part("a number with a decimal point", "숫자(소수점은 마침표)"),
    part("{number!t}, not 0, or empty for 1", "0이 아닌 {number}, 비우면 1"),
    part("{number!t}, or empty for 0", "{number}, 비우면 0"),
    part("{number!t}, or empty for no limit", "{number}, 비우면 제한 없음"),
    part("{number!t} from 0, or empty for 0", "0 이상의 {number}, 비우면 0"),
    part("a whole number from 0 to {most}, or empty for 1", "0~{most}의 정수, 비우면 1"),
    part(
        "a whole number of milliseconds from {least} to {most}",
        "{least}~{most}의 정수(밀리초)",
    ),
    part(
        "a whole number of milliseconds from period_ms to {most}, or empty",
        "period_ms 이상 {most} 이하의 정수(밀리초), 비워도 됨",
    ),
    part(
        "a whole number of digits from 0 to {most}, or empty",
        "소수점 아래 자릿수 0~{most}, 비워도 됨",
    ),
    part(
        "{orders}; for 16-bit types AB and BA too; or empty for ABCD",
        "{orders}, 16비트 데이터 형식이면 AB와 BA도 가능, 비우면 ABCD",
    ),
    part("{words}, or empty for true", "{words}, 비우면 true"),
    # texts
    Entry(
        "{character!t} is not allowed in a name{advice!t}",
        "이름에 쓸 수 없는 문자입니다: {character}{advice}",
    ),
    Entry(
        "{character!t} is not allowed here; delete it",
        "여기에 쓸 수 없는 문자입니다: {character}. 지우세요",
    ),
    part("the {kind!t} U+{code}", "{kind} U+{code}"),
    part("control character", "제어 문자"),
    part("invisible character", "보이지 않는 문자"),
    part(
        "U+FFFD, which stands for a character lost in a conversion,",
        "U+FFFD(인코딩을 바꿀 때 깨진 문자)",
    ),
    Entry(
        "a name has no space before or after it{advice!t}", "이름 앞뒤에 공백이 있습니다{advice}"
    ),
    Entry(
        "a name does not begin with $, which MQTT keeps to itself{advice!t}",
        "이름은 $로 시작할 수 없습니다(MQTT에서 예약한 문자){advice}",
    ),
    Entry(
        "{chars} characters long; allowed are {most}",
        "{chars}자로 너무 깁니다. 허용: {most}자 이하",
    ),
    # numbers
    Entry(
        "not a number with a decimal point{advice!t}",
        "숫자가 아닙니다(소수점은 마침표){advice}",
    ),
    Entry("not a whole number{advice!t}", "정수가 아닙니다{advice}"),
    Entry(
        "a scale of 0 makes every value the same; write 1 for no scaling",
        "scale이 0이면 모든 값이 같아집니다. 값을 그대로 두려면 1을 쓰세요",
    ),
    Entry(
        "not above lo, which is {lo}; exchange the two",
        "lo 값({lo})보다 커야 합니다. 두 값을 서로 바꾸세요",
    ),
    Entry("not above lo, which is {lo}", "lo 값({lo})보다 커야 합니다"),
    Entry(
        "below period_ms, which is {period}; write {least} or more, or leave the cell empty",
        "period_ms 값({period})보다 작습니다. {least} 이상을 쓰거나 셀을 비우세요",
    ),
    # types
    Entry(
        "not a type{advice!t}; allowed: {allowed}",
        "알 수 없는 데이터 형식입니다{advice}. 허용: {allowed}",
    ),
    Entry(
        "{type} has more than two bytes; write one of {orders}",
        "2바이트보다 긴 데이터 형식입니다: {type}. 다음 중 하나를 쓰세요: {orders}",
    ),
)
"""In the order of the code."""
