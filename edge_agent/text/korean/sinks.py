"""What sinks, ingest and the store say."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

SINKS: Final[tuple[Entry, ...]] = (
    # mqtt
    Entry("the MQTT sink is not open", "MQTT 싱크가 열려 있지 않음"),
    Entry("cannot connect", "연결할 수 없음"),
    Entry("connection lost", "연결이 끊어짐"),
    Entry("closed by the broker", "브로커가 연결을 끊음"),
    Entry("disconnected us", "브로커가 연결을 끊음"),
    Entry("refused the connection", "브로커가 연결을 거부함"),
    Entry("broke the protocol", "브로커가 프로토콜을 어김"),
    Entry(
        "takes QoS 0 only, which confirms nothing",
        "QoS 0만 지원해 전달을 확인할 수 없음",
    ),
    Entry(
        "no PUBACK within {seconds} s, {count} messages unanswered",
        "{seconds}초 안에 PUBACK 없음, 응답 없는 메시지 {count}개",
    ),
    Entry("silent for {seconds} s", "{seconds}초 동안 응답 없음"),
    Entry("an earlier publish was cut short", "앞선 발행이 중간에 끊김"),
    Entry("the connection must be opened again", "연결을 다시 열어야 합니다"),
    Entry("packet over {most} bytes", "패킷이 {most}바이트보다 큼"),
    Entry("unexpected {kind}", "예상하지 못한 패킷: {kind}"),
    Entry(
        "PUBACK for packet id {id}, which is not in flight",
        "보내지 않은 패킷의 PUBACK: 패킷 ID {id}",
    ),
    Entry("the broker does not want the devices' status", "브로커가 장치 상태를 받지 않음"),
    Entry(
        "check ca_file, cert_file and key_file of [mqtt]",
        "[mqtt]의 ca_file, cert_file, key_file을 확인하세요",
    ),
    Entry(
        "is this the port of an MQTT 5 broker, and does it want TLS (mqtts://)?",
        "MQTT 5 브로커의 포트가 맞는지, TLS(mqtts://)가 필요한지 확인하세요",
    ),
    Entry("the broker's log tells why", "이유는 브로커의 로그에 있습니다"),
    Entry(
        "a second agent with the same agent_id would do this",
        "같은 agent_id를 쓰는 에이전트가 또 있으면 이렇게 됩니다",
    ),
    Entry(
        "the agent needs a broker that speaks MQTT 5, such as Mosquitto 1.6 or newer",
        "MQTT 5를 지원하는 브로커가 필요합니다(예: Mosquitto 1.6 이상)",
    ),
    Entry(
        "allow client ids that start with edge-agent-",
        "edge-agent-로 시작하는 클라이언트 ID를 허용하세요",
    ),
    Entry("check username and password of [mqtt]", "[mqtt]의 username과 password를 확인하세요"),
    Entry(
        "check username, password and client certificate of [mqtt]",
        "[mqtt]의 username, password, 클라이언트 인증서를 확인하세요",
    ),
    Entry("Mosquitto's log says more", "자세한 내용은 Mosquitto의 로그에 있습니다"),
    Entry("another client has this client id", "다른 클라이언트가 같은 클라이언트 ID를 씁니다"),
    Entry("give each agent an agent_id of its own", "에이전트마다 다른 agent_id를 지정하세요"),
    Entry("allow retained messages", "보관 메시지(retain)를 허용하세요"),
    Entry("the status topic needs them", "상태 토픽에 필요합니다"),
    Entry("allow QoS 1 (Mosquitto", "QoS 1을 허용하세요(Mosquitto"),
    Entry("max_qos 1 or 2)", "max_qos 1 또는 2)"),
    # reason codes of MQTT 5.0, 2.4, with their number
    part("unspecified error", "알 수 없는 오류"),
    part("malformed packet", "잘못된 패킷"),
    part("protocol error", "프로토콜 오류"),
    part("implementation specific error", "브로커 내부 오류"),
    part("unsupported protocol version", "지원하지 않는 프로토콜 버전"),
    part("client id not valid", "클라이언트 ID가 올바르지 않음"),
    part("bad user name or password", "사용자 이름이나 비밀번호가 틀림"),
    part("not authorized", "권한 없음"),
    part("server unavailable", "서버를 사용할 수 없음"),
    part("server busy", "서버가 바쁨"),
    part("banned", "차단됨"),
    part("server shutting down", "서버 종료 중"),
    part("bad authentication method", "잘못된 인증 방식"),
    part("keep alive timeout", "keep alive 시간 초과"),
    part("session taken over", "다른 클라이언트가 세션을 가져감"),
    part("topic filter invalid", "토픽 필터가 올바르지 않음"),
    part("topic name invalid", "토픽 이름이 올바르지 않음"),
    part("packet id in use", "사용 중인 패킷 ID"),
    part("packet id not found", "없는 패킷 ID"),
    part("receive maximum exceeded", "동시 전송 한도 초과"),
    part("topic alias invalid", "토픽 별칭이 올바르지 않음"),
    part("packet too large", "패킷이 너무 큼"),
    part("message rate too high", "메시지 전송 속도 초과"),
    part("quota exceeded", "허용량 초과"),
    part("administrative action", "관리자가 끊음"),
    part("payload format invalid", "페이로드 형식이 올바르지 않음"),
    part("retain not supported", "보관 메시지를 지원하지 않음"),
    part("QoS not supported", "이 QoS를 지원하지 않음"),
    part("use another server", "다른 서버를 사용하라고 함"),
    part("server moved", "서버가 옮겨짐"),
    part("connection rate exceeded", "연결 시도 횟수 초과"),
    part("maximum connect time", "최대 연결 시간 초과"),
    part("unknown reason", "알 수 없는 이유"),
    # influx
    Entry("influx sink is not open", "InfluxDB 싱크가 열려 있지 않음"),
    Entry("{url} refuses every write", "모든 쓰기를 거부함: {url}"),
    Entry(
        "check [influx] org ({org!r}) and bucket ({bucket!r})",
        "[influx] 설정을 확인하세요(org {org}, bucket {bucket})",
    ),
    Entry("no answer to a write within {seconds} s", "{seconds}초 안에 쓰기 응답 없음"),
    Entry(
        "the answer to a write is not InfluxDB's (204 expected)",
        "쓰기 응답이 InfluxDB의 것이 아님(필요: 204)",
    ),
    Entry("check [influx] url", "[influx]의 url을 확인하세요"),
    Entry("it must lead to InfluxDB itself", "InfluxDB를 직접 가리켜야 합니다"),
    Entry("redirects are not followed", "리디렉션은 따라가지 않습니다"),
    Entry("{url} answered {status}", "{url} 응답 코드 {status}"),
    Entry("check [influx] token (or token_file)", "[influx]의 token(또는 token_file)을 확인하세요"),
    Entry(
        "the token of [influx] must be allowed to write to bucket {bucket!r}",
        "[influx]의 token에 bucket {bucket} 쓰기 권한이 있어야 합니다",
    ),
    Entry(
        "check [influx] url, org ({org!r}) and bucket ({bucket!r})",
        "[influx]의 url을 확인하세요(org {org}, bucket {bucket})",
    ),
    Entry(
        "one or more of {count} lines, not told apart",
        "{count}개 행 중 하나 이상, 구분할 수 없음",
    ),
    # store
    Entry("store {path} is not open", "저장소가 열려 있지 않음: {path}"),
    Entry(
        "{path} is not a store of format {format} (application id {id}, format {found})",
        "형식 {format}의 저장소가 아님: {path}(애플리케이션 ID {id}, 형식 {found})",
    ),
    Entry(
        "move the file away, or run the version of the agent that wrote it",
        "파일을 옮기거나, 파일을 만든 버전의 에이전트를 실행하세요",
    ),
    Entry("{path} was replaced by another file", "다른 파일로 바뀜: {path}"),
    Entry(
        "free some disk space, or ask for fewer raw_hours or minute_days",
        "디스크 공간을 확보하거나 [store]의 raw_hours 또는 minute_days를 줄이세요",
    ),
    Entry("another process writes this file", "다른 프로세스가 이 파일에 쓰고 있습니다"),
    Entry("one agent per data_dir", "data_dir마다 에이전트는 하나여야 합니다"),
    Entry(
        "the agent's user must own its data_dir",
        "에이전트를 실행하는 사용자가 data_dir의 소유자여야 합니다",
    ),
    Entry("store {path} can't be read", "저장소를 읽을 수 없음: {path}"),
    Entry(
        "the agent creates it when its store is on",
        "에이전트에서 저장소를 켜면 만들어집니다",
    ),
    Entry(
        "is its disk busy? ask for a shorter range, or for fewer tags",
        "디스크가 바쁜지 확인하고, 더 짧은 기간이나 더 적은 태그를 조회하세요",
    ),
    Entry(
        "store {path} changes again and again while it is read",
        "읽는 동안 저장소가 계속 바뀜: {path}",
    ),
    Entry(
        "store {path} has format {found}, not {format}",
        "저장소 형식이 다름: {path}(형식 {found}, 필요: {format})",
    ),
    Entry("database or disk is full", "디스크 또는 데이터베이스가 가득 참"),
    Entry("database is locked", "데이터베이스가 잠겨 있음"),
    Entry("disk I/O error", "디스크 입출력 오류"),
    Entry("unable to open database file", "데이터베이스 파일을 열 수 없음"),
    Entry("attempt to write a readonly database", "읽기 전용 데이터베이스라 쓸 수 없음"),
    # ingest
    Entry("the journal has been replaced, connecting anew", "저널이 바뀌어 다시 연결합니다"),
    Entry("the broker sends more than it may", "브로커가 허용량보다 많이 보냄"),
    Entry("the broker refuses every subscription", "브로커가 모든 구독을 거부함"),
    Entry(
        "check mqtt.ingest_topics, and the broker's rights for mqtt.username",
        "mqtt.ingest_topics와, 브로커에서 mqtt.username의 권한을 확인하세요",
    ),
    Entry("cannot be read", "읽을 수 없음"),
    Entry("cannot be written", "쓸 수 없음"),
    Entry(
        "not the seven keys ts, site, line, device, tag, value, unit",
        "키가 ts, site, line, device, tag, value, unit 일곱 개가 아님",
    ),
    Entry("value is not a number", "value가 숫자가 아님"),
    Entry(
        "site, line, device, tag and unit are not all text",
        "site, line, device, tag, unit 중 텍스트가 아닌 것이 있음",
    ),
    Entry("{column} is empty", "값이 비어 있음: {column}"),
    Entry("a name that no map may have", "맵에서 허용하지 않는 이름"),
)
