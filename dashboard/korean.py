"""What the pages tell of the system, with its Korean beside it.

An error, a hint or a problem gets a neighbour with _ko at its name's end, as the texts of the
address map do (map_korean.py); it is None where nothing of it is known in Korean, and a page shows
the English one. Sentences that the agent puts together come with their Korean (`verdict_ko`,
`problems_ko`): see edge_agent/status/verdict.py.

Most errors are the agent's or those of a database, and edge_agent/text/korean/ has them; those of
the dashboard itself are here. tests/unit/test_korean_errors.py holds both complete.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from edge_agent.text.catalogue import Entry, Pieces
from edge_agent.text.korean import ERRORS

OWN: Final[tuple[Entry, ...]] = (
    # whom it asks (dashboard/live/feed.py, dashboard/services.py)
    Entry("no {program} answers at {url}", "{program} 응답 없음({url})"),
    Entry("{path} answers {status}", "{path} 응답 코드 {status}"),
    Entry(
        "what answers at {url} is no agent of this version",
        "{url} 주소에서 응답하는 프로그램이 같은 버전의 에이전트가 아님",
    ),
    Entry(
        "upgrade edge-agent and edge-dashboard together, then restart both",
        "edge-agent와 edge-dashboard를 함께 업그레이드한 뒤 둘 다 다시 시작하세요",
    ),
    Entry("the agent takes over another address map", "에이전트가 새 주소 맵으로 바꾸는 중입니다"),
    Entry(
        "dashboard.agent_url says where to ask",
        "에이전트의 주소는 dashboard.agent_url에서 설정합니다",
    ),
    # what it can't answer (dashboard/chart.py, dashboard/api.py)
    Entry("{count} tags", "태그 {count}개"),
    Entry("a chart shows 1 to {most}", "차트에는 1~{most}개를 표시할 수 있습니다"),
    Entry(
        "from must be before to, both in milliseconds since 1970 UTC",
        "from이 to보다 앞서야 합니다. 단위는 1970년(UTC)부터의 밀리초입니다",
    ),
    Entry("a range of {days} days", "기간 {days}일"),
    Entry("at most {days} are allowed", "허용: {days}일 이하"),
    Entry(
        "site, device and at least one tag must be given",
        "site, device와 태그를 하나 이상 지정하세요",
    ),
    Entry("must be a whole number", "정수여야 합니다"),
    Entry("remote.http says where to ask", "edge-remote의 주소는 remote.http에서 설정합니다"),
)
"""What the dashboard says by itself."""

TOLD: Final = ("error", "hint", "problem")
"""The names under which a person is told something."""


def in_korean(text: str | None) -> str | None:
    """The Korean of an error or a hint; None where nothing of it is known."""
    return _pieces().korean(text) if text else None


def with_korean_throughout(found: Any) -> Any:
    """Plain data with the Korean of everything in it that a person is told.

    A list of ``problems`` gets one of the same length, unless it brings its Korean.
    """
    match found:
        case dict():
            body = {name: with_korean_throughout(value) for name, value in found.items()}
            body |= {f"{name}_ko": in_korean(found[name]) for name in TOLD if name in found}
            if _are_texts(found.get("problems")) and "problems_ko" not in found:
                body["problems_ko"] = [in_korean(text) or text for text in found["problems"]]
            return body
        case list():
            return [with_korean_throughout(one) for one in found]
    return found


def _are_texts(found: object) -> bool:
    return isinstance(found, list) and all(isinstance(one, str) for one in found)


@cache
def _pieces() -> Pieces:
    return Pieces((*OWN, *ERRORS))
