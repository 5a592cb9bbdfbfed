"""What drivers and the poller say of connections, blocks and values."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

DRIVERS: Final[tuple[Entry, ...]] = (
    # any of them
    Entry("not connected yet", "아직 연결되지 않음"),
    Entry("not connected", "연결되지 않음"),
    Entry("no answer in time", "시간 안에 응답 없음"),
    Entry("no answer within {seconds} s", "{seconds}초 안에 응답 없음"),
    Entry(
        "no answer within {seconds} s to each of {times} requests",
        "{seconds}초 안에 응답 없음(요청 {times}회 모두)",
    ),
    Entry("no connection within {seconds} s", "{seconds}초 안에 연결되지 않음"),
    Entry("{count} requests in a row without an answer", "연속 {count}개 요청에 응답 없음"),
    Entry("unit {unit} does not answer", "유닛 {unit} 응답 없음"),
    Entry("closed by the device", "장치가 연결을 끊음"),
    Entry("not read yet", "아직 읽지 않음"),
    Entry("not a finite number", "유한한 수가 아님"),
    Entry("the device refused this address before", "장치가 이 주소를 거부한 적이 있음"),
    Entry("it is tried again soon", "곧 다시 시도합니다"),
    Entry("cells from {first} can't be read", "{first}번 이후의 셀은 읽을 수 없음"),
    # modbus
    Entry("unit {unit} answered", "다른 유닛이 응답함: {unit}"),
    Entry("exception {code} {name}", "예외 응답 {code} {name}"),
    Entry(
        "function {code} answered, {asked} was asked",
        "다른 기능 코드로 응답함: {code}(요청: {asked})",
    ),
    Entry(
        "{found} bytes of data, said to be {said}, expected {expected}",
        "데이터 {found}바이트(표시: {said}, 필요: {expected})",
    ),
    Entry("its certificate is refused", "인증서를 신뢰할 수 없음"),
    Entry("cannot load the TLS files", "TLS 파일을 읽을 수 없음"),
    Entry("check ca, cert and key in `conn`", "`conn`의 ca, cert, key를 확인하세요"),
    Entry(
        "PEM, readable, key not encrypted",
        "PEM 형식이고, 읽을 수 있고, 키는 암호화되지 않아야 합니다",
    ),
    Entry(
        "name the authority that signed it with ?ca=/path in `conn`",
        "`conn`의 ?ca=/path에 인증서를 서명한 기관을 지정하세요",
    ),
    Entry(
        "with verify=ca its host name is not compared",
        "verify=ca를 쓰면 호스트 이름을 비교하지 않습니다",
    ),
    Entry(
        "the replies to earlier requests are still outstanding",
        "앞선 요청의 응답이 아직 오지 않음",
    ),
    Entry("the line is never silent", "시리얼 회선에 신호가 끊기는 때가 없음"),
    Entry("does another master use it?", "다른 마스터가 사용하는지 확인하세요"),
    Entry("the reply's checksum is wrong", "응답의 체크섬이 틀림"),
    Entry("it begins with {bytes}", "앞부분: {bytes}"),
    Entry(
        "no valid reply, but {count} bytes that begin with {bytes}",
        "올바른 응답 대신 {count}바이트를 받음, 앞부분: {bytes}",
    ),
    Entry("in use by another connection or program", "다른 연결이나 프로그램이 사용 중"),
    Entry("not a serial port", "시리얼 포트가 아님"),
    Entry(
        "the port does not take {baud} baud with parity {parity} and {stop} stop bits (a pseudo"
        " terminal takes parity=N only)",
        "포트가 지원하지 않는 설정: {baud} baud, 패리티 {parity}, 정지 비트 {stop}"
        "(가상 터미널은 parity=N만 지원)",
    ),
    Entry("the port is gone", "포트가 사라짐"),
    Entry("the port does not send", "포트가 데이터를 보내지 못함"),
    Entry("does it wait for a flow control signal?", "흐름 제어 신호를 기다리고 있는지 확인하세요"),
    # s7
    Entry("check rack and slot", "rack과 slot을 확인하세요"),
    Entry(
        "a CPU also refuses when all its connections are taken",
        "CPU의 연결이 모두 사용 중일 때도 거부됩니다",
    ),
    Entry(
        "the data block must be in the CPU, be long enough, and have its attribute"
        " 'Optimized block access' off",
        "데이터 블록이 CPU에 있고 길이가 충분하며"
        " '최적화된 블록 액세스'(Optimized block access)가 꺼져 있어야 합니다",
    ),
    Entry(
        "switch on 'Permit access with PUT/GET communication' in the CPU's properties",
        "CPU 속성에서 'PUT/GET 통신을 통한 액세스 허용'"
        "(Permit access with PUT/GET communication)을 켜세요",
    ),
    Entry(
        "the CPU allows PDUs of {count} bytes only", "CPU가 허용하는 PDU가 너무 작음: {count}바이트"
    ),
    Entry(
        "the CPU grants PDUs of {granted} bytes, and a request is planned for {planned}",
        "CPU가 허용하는 PDU는 {granted}바이트인데 요청은 {planned}바이트에 맞춰 계획되어 있음",
    ),
    Entry("write pdu={granted} into `conn`", "`conn`에 다음을 쓰세요: pdu={granted}"),
    Entry("the CPU did not say how large a PDU may be", "CPU가 PDU의 최대 크기를 알려 주지 않음"),
    Entry("disconnected by the device", "장치가 연결을 끊음"),
    Entry("not ISO on TCP", "ISO on TCP 응답이 아님"),
    Entry("not an S7 reply", "S7 응답이 아님"),
    Entry("not what was asked for", "요청과 다른 응답"),
    Entry("a PDU of more than {most} bytes", "PDU가 {most}바이트보다 큼"),
    Entry("job {found} answered, {asked} was asked", "다른 작업에 응답함: {found}(요청: {asked})"),
    # opcua
    Entry("no session within {seconds} s", "{seconds}초 안에 세션이 열리지 않음"),
    Entry("closed by the server", "서버가 연결을 끊음"),
    Entry("more than {most} blocks since connect", "연결한 뒤 읽은 블록이 {most}개를 넘음"),
    Entry("{found} results for {asked} nodes", "노드 {asked}개에 결과 {found}개가 옴"),
    Entry("the server gave the subscription up", "서버가 구독을 끝냄"),
    Entry(
        "the subscription has shown no sign of life for {seconds} s",
        "{seconds}초 동안 구독에서 아무 신호도 없음",
    ),
    Entry("a notification that is longer than it says", "알림의 길이가 표시된 것과 다름"),
    Entry("the server refused", "서버가 거부함"),
    Entry(
        "check user, password or user_certificate in `conn`",
        "`conn`의 user, 비밀번호, user_certificate를 확인하세요",
    ),
    Entry("the server takes no such login", "서버가 이 로그인 방식을 지원하지 않습니다"),
    Entry("see its settings", "서버 설정을 확인하세요"),
    Entry(
        "make the server trust the agent's certificate",
        "서버에서 에이전트의 인증서를 신뢰하도록 등록하세요",
    ),
    Entry("check the certificate named in `conn`", "`conn`에 지정한 인증서를 확인하세요"),
    Entry(
        "the certificate has expired, or a clock is wrong",
        "인증서가 만료되었거나 시계가 틀립니다",
    ),
    Entry(
        "the certificate has no subjectAltName with a URI",
        "인증서의 subjectAltName에 URI가 없습니다",
    ),
    Entry("the server has no such security", "서버에 이 security 설정이 없습니다"),
    Entry("the server has no such security_mode", "서버에 이 security_mode 설정이 없습니다"),
    Entry("the server's signature is wrong", "서버의 서명이 틀림"),
    Entry(
        "it has not the key of the certificate it shows",
        "제시한 인증서의 키를 갖고 있지 않습니다",
    ),
    Entry(
        "the server has no endpoint with this security and security_mode",
        "서버에 이 security와 security_mode를 쓰는 엔드포인트가 없음",
    ),
    Entry(
        "the server shows another certificate than the one named in `conn`",
        "서버의 인증서가 `conn`에 지정한 것과 다름",
    ),
    Entry("the variable {name} is not set", "환경 변수가 없음: {name}"),
    Entry("password_file is not UTF-8 text", "password_file이 UTF-8 텍스트가 아님"),
    Entry("{path} is not a regular file", "일반 파일이 아님: {path}"),
    Entry("{path} has {count} bytes or more", "파일 크기 {count}바이트 이상: {path}"),
    Entry("allowed", "허용"),
    Entry("1 to {most}", "1~{most}"),
    Entry("the server sent no value", "서버가 값을 보내지 않음"),
    Entry("the value is {kind!t}, not a number or Boolean", "값이 숫자나 불리언이 아님: {kind}"),
    part("an array", "배열"),
    part("a {kind}", "{kind}"),
    # mqtt
    Entry("cannot load a file", "파일을 읽을 수 없음"),
    Entry(
        "check password_file, ca, cert and key in `conn`",
        "`conn`의 password_file, ca, cert, key를 확인하세요",
    ),
    Entry(
        "check user= and password_file= in `conn`, and the broker's rights for them",
        "`conn`의 user=와 password_file=, 브로커에서 그 사용자의 권한을 확인하세요",
    ),
    Entry("the broker ended the connection", "브로커가 연결을 끊음"),
    Entry("the connection ended", "연결이 끊어짐"),
    Entry("topic {topic}", "토픽 {topic}"),
    Entry("the broker refuses the subscription", "브로커가 구독을 거부함"),
    # what a message's value is not
    Entry("the payload is empty", "페이로드가 비어 있음"),
    Entry("the payload is neither a number nor JSON", "페이로드가 숫자도 JSON도 아님"),
    Entry("the payload has no {way!r}", "페이로드에 없는 항목: {way}"),
    Entry(
        "expected a number, true or false, found {found!t}",
        "숫자나 true, false가 아님: {found}",
    ),
    part("an object", "객체"),
    part("a list", "목록"),
    part("text", "텍스트"),
    part("null", "null"),
    Entry(
        "expected true, false, 1 or 0 for a BOOL, found {found}",
        "BOOL 값이 아님: {found}(허용: true, false, 1, 0)",
    ),
    Entry(
        "ts is not a time like 2025-08-17T12:00:00.000Z",
        "ts가 시각이 아님(예: 2025-08-17T12:00:00.000Z)",
    ),
    Entry("ts has no time zone", "ts에 시간대가 없음"),
    Entry("write Z at its end for UTC", "UTC이면 끝에 Z를 쓰세요"),
    Entry(
        "ts is more than an hour ahead of this machine's clock, or a year behind it",
        "ts가 이 컴퓨터의 시계보다 한 시간 넘게 앞서거나 1년 넘게 뒤짐",
    ),
)
