"""What the routes of the address map tell, with its Korean beside it.

A text that people read, such as ``message``, gets a neighbour ``message_ko``; it is None where
there is no Korean, and a page shows the English one. Problems of a map have their Korean from the
agent's package (edge_agent/address_map/korean/); what is refused otherwise has it here. The
catalogue is held complete by tests/unit/test_korean.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from edge_agent.address_map.korean import OF_THE_SYSTEM, file_in_korean, to_korean
from edge_agent.text.catalogue import Catalogue, Entry, part

REFUSALS: Final[tuple[Entry, ...]] = (
    *OF_THE_SYSTEM,
    # the agent: is it there (edge_agent/control_client.py, dashboard/maps.py)
    Entry("no agent runs on {folder}", "실행 중인 에이전트가 없습니다: {folder}"),
    Entry(
        "start it, or name its data folder with --data-dir",
        "에이전트를 시작하거나 --data-dir 옵션으로 데이터 폴더를 지정하세요",
    ),
    Entry(
        "only the agent's user and group may",
        "에이전트를 실행하는 사용자와 그 그룹만 접근할 수 있습니다",
    ),
    Entry(
        "{folder}/control.sock: {reason!t}",
        "에이전트의 소켓에 접근할 수 없습니다: {folder}/control.sock: {reason}",
    ),
    Entry("the agent did not answer: {reason}", "에이전트가 응답하지 않았습니다: {reason}"),
    Entry("the agent answered with code {code}", "에이전트의 응답 코드: {code}"),
    Entry("the agent's answer is not JSON", "에이전트의 응답이 JSON이 아닙니다"),
    Entry("the agent's answer is not an object", "에이전트의 응답이 객체가 아닙니다"),
    Entry(
        "systemctl status edge-agent; the dashboard must run on the agent's machine and be told"
        " the same data folder (agent.data_dir, --data-dir)",
        "systemctl status edge-agent; 대시보드는 에이전트와 같은 컴퓨터에서 실행하고 같은 데이터"
        " 폴더를 지정해야 합니다(agent.data_dir, --data-dir)",
    ),
    Entry(
        "systemctl status edge-dashboard; it must run as the agent's user, or in its group",
        "systemctl status edge-dashboard; 대시보드는 에이전트를 실행하는 사용자나"
        " 그 그룹의 사용자로 실행해야 합니다",
    ),
    # the agent: what it refuses (edge_agent/reload/)
    Entry("another map has been applied meanwhile", "그 사이 다른 맵이 적용되었습니다"),
    Entry(
        "look at the difference to the running one again",
        "실행 중인 맵과 다시 비교하세요",
    ),
    Entry(
        "{path} has just been edited, which would be overwritten",
        "방금 편집된 파일을 덮어쓰게 됩니다: {path}",
    ),
    Entry(
        "it is looked at within three seconds: then look at the difference again",
        "에이전트가 3초 안에 그 파일을 확인합니다. 그런 다음 다시 비교하세요",
    ),
    Entry("the agent is ending", "에이전트가 종료 중입니다"),
    Entry(
        "after its start it runs what is in the file",
        "다시 시작하면 파일에 있는 맵을 실행합니다",
    ),
    Entry("{path}: can't be written: {reason!t}", "파일에 쓸 수 없습니다: {path}: {reason}"),
    Entry("{path}: can't be read: {reason!t}", "파일을 읽을 수 없습니다: {path}: {reason}"),
    Entry(
        "the agent's user needs the right to write the file and its folder",
        "에이전트를 실행하는 사용자에게 그 파일과 폴더의 쓰기 권한이 필요합니다",
    ),
    Entry(
        "there is no version {number} of the map; there are {range!t}",
        "맵의 버전 {number}: 없는 버전입니다. 있는 버전: {range}",
    ),
    Entry(
        "there is no version {number} of the map; there is only version {only}",
        "맵의 버전 {number}: 없는 버전입니다. 있는 버전: {only}",
    ),
    part("{first} to {last}", "{first}~{last}"),
    part("none", "없음"),
    Entry("edge-agent map history", "edge-agent map history"),
    Entry("version {number}: {path}: {reason!t}", "버전 {number}: {path}: {reason}"),
    Entry(
        "version {number}: {path} was changed or is damaged",
        "버전 {number}: 파일이 바뀌었거나 손상되었습니다: {path}",
    ),
    Entry(
        "{folder}: version {number} may be there already",
        "버전 {number}: 이미 있을 수 있습니다({folder})",
    ),
    # the dashboard (dashboard/map_routes.py)
    Entry(
        "only the role admin may see and change the address map",
        "주소 맵은 admin 역할의 사용자만 보고 바꿀 수 있습니다",
    ),
    Entry(
        "sign in as somebody who has it; `edge-dashboard user list` shows who",
        "그 역할이 있는 사용자로 로그인하세요."
        " `edge-dashboard user list` 명령으로 확인할 수 있습니다",
    ),
    Entry(
        "content type {given!r}; allowed: {kind}",
        "잘못된 Content-Type입니다: {given}. 허용: {kind}",
    ),
    Entry(
        "the file did not arrive within {seconds} s",
        "파일이 {seconds}초 안에 도착하지 않았습니다",
    ),
    Entry(
        "the file is larger than any map: allowed: {most} bytes",
        "주소 맵으로 보기에는 파일이 너무 큽니다. 허용: {most}바이트 이하",
    ),
    Entry("If-Match is missing", "If-Match 헤더가 없습니다"),
    Entry("ask for the plan first; its `over`", "먼저 계획을 요청하고, 그 답의 `over`를 쓰세요"),
    Entry(
        "version {given!r}: must be a whole number",
        "버전은 정수여야 합니다: {given}",
    ),
)
"""Errors and hints."""

_CATALOGUE: Final = Catalogue(REFUSALS)


def with_korean(found: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """The same, with the Korean of each of these texts beside it: ``hint_ko`` of ``hint``."""
    return {**found, **{f"{name}_ko": _refusal(found.get(name)) for name in names}}


def problems_with_korean(problems: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A map's problems as the agent tells them, with the Korean of each ``message``."""
    return [{**problem, "message_ko": to_korean(problem["message"])} for problem in problems]


def state_with_korean(state: Mapping[str, Any]) -> dict[str, Any]:
    """What runs, as the agent tells it, with the Korean of why the file is not it."""
    found = with_korean(state, "error")
    if state["problems"]:
        found["error_ko"] = file_in_korean(state["path"], state["problems"], state["error"])
    return {**found, "problems": problems_with_korean(state["problems"])}


def _refusal(text: str | None) -> str | None:
    return _CATALOGUE.korean(text) if text else None
