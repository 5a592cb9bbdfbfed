"""The system's own words, and those of libraries that name what a protocol's code means."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

FILES: Final[tuple[Entry, ...]] = (
    Entry("Permission denied", "권한 없음"),
    Entry("Read-only file system", "읽기 전용 파일 시스템"),
    Entry("No space left on device", "디스크 공간 부족"),
)
"""Why the system refuses a file that somebody edits."""

WORDS: Final[tuple[Entry, ...]] = (
    *FILES,
    # errno(3), as os.strerror() says it
    Entry("Input/output error", "입출력 오류"),
    Entry("No such file or directory", "파일이나 폴더가 없음"),
    Entry("No such device", "장치가 없음"),
    Entry("No such device or address", "장치가 없음"),
    Entry("Too many open files", "열린 파일이 너무 많음"),
    Entry("Connection refused", "연결 거부됨"),
    Entry("Connection reset by peer", "상대가 연결을 끊음"),
    Entry("Connection timed out", "연결 시간 초과"),
    Entry("Broken pipe", "연결이 끊어짐"),
    Entry("No route to host", "호스트까지 가는 경로 없음"),
    Entry("Network is unreachable", "네트워크에 연결할 수 없음"),
    Entry("Network is down", "네트워크가 꺼져 있음"),
    Entry("Host is down", "호스트가 꺼져 있음"),
    Entry("Name or service not known", "호스트 이름을 찾을 수 없음"),
    Entry("No address associated with hostname", "호스트 이름에 주소가 없음"),
    Entry("Temporary failure in name resolution", "이름 서버가 응답하지 않음"),
    Entry("Address already in use", "이미 사용 중인 주소"),
    # http.client and socket
    Entry("timed out", "응답 시간 초과"),
    Entry("Remote end closed connection without response", "응답 없이 연결이 끊어짐"),
    # paho: reason codes of MQTT 5.0, 2.4
    Entry("Not authorized", "권한 없음"),
    Entry("Bad user name or password", "사용자 이름이나 비밀번호가 틀림"),
    Entry("Client identifier not valid", "클라이언트 ID가 올바르지 않음"),
    Entry("Quota exceeded", "허용량 초과"),
    Entry("Server busy", "서버가 바쁨"),
    Entry("Server unavailable", "서버를 사용할 수 없음"),
    Entry("Server shutting down", "서버 종료 중"),
    Entry("Session taken over", "다른 클라이언트가 세션을 가져감"),
    Entry("Unspecified error", "알 수 없는 오류"),
    Entry("Topic filter invalid", "토픽 필터가 올바르지 않음"),
    # asyncio
    Entry("Connect call failed {address}", "연결 실패 {address}"),
)
"""What stands as it is, or behind a number."""

SYSTEM: Final[tuple[Entry, ...]] = (
    *WORDS,
    *(part(word.english, word.korean) for word in WORDS),
    Entry("[Errno {number}] {reason!t}", "{reason} [Errno {number}]"),
    # snap7: return codes of an item
    Entry("{reason!t} ({code})", "{reason} ({code})"),
    part("Hardware error", "하드웨어 오류"),
    part("Accessing the object not allowed", "접근이 허용되지 않음"),
    part("Invalid address", "없는 주소"),
    part("Data type not supported", "지원하지 않는 데이터 형식"),
    part("Data type inconsistent", "데이터 형식 불일치"),
    part("Object does not exist", "없는 데이터 블록"),
)
