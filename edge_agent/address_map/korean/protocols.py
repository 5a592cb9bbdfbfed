"""What the protocols say of `protocol`, `conn` and `address`."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

_ANY: Final[tuple[Entry, ...]] = (
    Entry(
        "{type} takes {width} cells, but {conn} allows {most} a request",
        "요청 하나로 읽을 수 있는 크기를 넘습니다"
        "({type}: 레지스터(셀) {width}개, {conn}: {most}개까지)",
    ),
    Entry(
        "unknown protocol {name!r}; allowed: {names}",
        "알 수 없는 프로토콜입니다: {name}. 허용: {names}",
    ),
    Entry(
        "protocol {name!r} can't be loaded from package {package}: {kind}: {error}",
        "프로토콜 {name}: 패키지 {package}에서 불러올 수 없습니다: {kind}: {error}",
    ),
    Entry(
        "{conn!r}: {error}; {expected!t}",
        "연결 주소를 해석할 수 없습니다: {conn}: {error}. {expected}",
    ),
    Entry(
        "{conn!r} has more than host, port and options; {expected!t}",
        "호스트, 포트, 옵션 외의 내용이 있습니다: {conn}. {expected}",
    ),
    Entry(
        "{conn!r}: port 0; allowed: 1 to 65535",
        "포트 0은 쓸 수 없습니다: {conn}. 허용: 1~65535",
    ),
    Entry(
        "unknown option {name!r}; allowed: {names}",
        "알 수 없는 옵션입니다: {name}. 허용: {names}",
    ),
    Entry("option {name} is given twice", "같은 옵션이 두 번 있습니다: {name}"),
    Entry(
        "{name}={value}; allowed: {allowed!t}",
        "옵션 값이 잘못되었습니다: {name}={value}. 허용: {allowed}",
    ),
    Entry(
        "{name}={value}; allowed: {smallest} to {largest}",
        "옵션 값이 잘못되었습니다: {name}={value}. 허용: {smallest}~{largest}",
    ),
    part("{smallest} to {largest}", "{smallest}~{largest}"),
    Entry(
        "{address!r}: bit {bit}; allowed: 0 to {last}",
        "{address}: 비트 번호 {bit}. 허용: 0~{last}",
    ),
    Entry(
        "{address!r}: one bit is a BOOL, not {type}",
        "{address}: 비트 주소의 데이터 형식은 BOOL입니다. 맞지 않는 데이터 형식: {type}",
    ),
)

_MODBUS: Final[tuple[Entry, ...]] = (
    part(
        "expected tcp://HOST:PORT, for example tcp://10.0.0.5:502",
        "형식: tcp://HOST:PORT, 예: tcp://10.0.0.5:502",
    ),
    part(
        "expected tcp+tls://HOST:PORT, for example tcp+tls://10.0.0.5:802?ca=/etc/ca.pem",
        "형식: tcp+tls://HOST:PORT, 예: tcp+tls://10.0.0.5:802?ca=/etc/ca.pem",
    ),
    part(
        "expected rtu:///DEVICE, for example rtu:///dev/ttyUSB0?baudrate=9600&parity=N",
        "형식: rtu:///DEVICE, 예: rtu:///dev/ttyUSB0?baudrate=9600&parity=N",
    ),
    part(
        "expected rtu+tcp://HOST:PORT, for example rtu+tcp://10.0.0.5:4001",
        "형식: rtu+tcp://HOST:PORT, 예: rtu+tcp://10.0.0.5:4001",
    ),
    Entry(
        "{conn!r} is not a Modbus connection; {expected!t}",
        "Modbus 연결 주소가 아닙니다: {conn}. {expected}",
    ),
    Entry(
        "{conn!r} is not a serial line, whose path begins after three slashes; {expected!t}",
        "시리얼 포트가 아닙니다: {conn}. 경로는 슬래시 세 개 뒤에 씁니다. {expected}",
    ),
    Entry("{conn!r} has no port; {expected!t}", "포트가 없습니다: {conn}. {expected}"),
    Entry(
        "{conn!r}: a key without its certificate; add cert=/path",
        "key 옵션만 있고 인증서가 없습니다: {conn}. cert=/path 옵션을 추가하세요",
    ),
    Entry(
        "{name}={value}; allowed: the whole path of a PEM file, from / on",
        "옵션 값이 잘못되었습니다: {name}={value}. 허용: /로 시작하는 PEM 파일의 전체 경로",
    ),
    Entry(
        "{address!r} is not a Modbus address; {allowed!t}",
        "Modbus 주소가 아닙니다: {address}. {allowed}",
    ),
    Entry(
        "{address!r} is out of range; {allowed!t}",
        "범위를 벗어난 주소입니다: {address}. {allowed}",
    ),
    part("allowed: {first} to {last} in each area", "허용: 영역마다 {first}~{last}"),
    part(
        "allowed: {first} to {digit}9999, {long} to {last}",
        "허용: {first}~{digit}9999, {long}~{last}",
    ),
    part(
        "{allowed!t}; where {digit}0000 is the first, `conn` needs ?zero_based=true",
        "{allowed}. 첫 번호가 {digit}0000인 장치라면 `conn`에 ?zero_based=true가 필요합니다",
    ),
    part(
        "allowed: 4000{a} or 40000{b} (holding register), 3000{c} (input register),"
        " 1000{d} (discrete input), 0000{e} (coil), counted from {f};"
        " or hr:0, ir:0, di:0, co:0, counted from 0; 4000{g}.3 is bit 3 of a register",
        "허용: 4000{a} 또는 40000{b}(홀딩 레지스터), 3000{c}(입력 레지스터),"
        " 1000{d}(디스크리트 입력), 0000{e}(코일), 번호는 {f}부터."
        " 또는 hr:0, ir:0, di:0, co:0, 번호는 0부터. 레지스터의 비트 3은 4000{g}.3",
    ),
    Entry(
        "{address!r}: a {area} is one bit already; leave out .{bit}",
        "{address}: {area} 영역은 주소 하나가 1비트입니다. 다음을 빼세요: .{bit}",
    ),
    Entry(
        "{address!r}: a {area} holds a BOOL, not {type}",
        "{address}: {area} 영역의 데이터 형식은 BOOL입니다. 맞지 않는 데이터 형식: {type}",
    ),
    Entry(
        "{address!r}: {type} takes {width} registers and the area ends",
        "{address}: 영역의 끝을 넘습니다. 데이터 형식 {type}의 크기: 레지스터 {width}개",
    ),
)

_S7: Final[tuple[Entry, ...]] = (
    part(
        "expected s7://HOST:PORT, for example s7://10.0.0.1:102?rack=0&slot=1",
        "형식: s7://HOST:PORT, 예: s7://10.0.0.1:102?rack=0&slot=1",
    ),
    Entry(
        "{conn!r} is not an S7 connection; {expected!t}",
        "S7 연결 주소가 아닙니다: {conn}. {expected}",
    ),
    part(
        "allowed: DB1.DBX0.3 (one bit), DB1.DBB0, DB1.DBW2, DB1.DBD4 (1, 2, 4 bytes), or DB1.4"
        " and DB1.0.3, where `type` gives the size; likewise M0.3, MW2, I0.3, IW2, Q0.3, QW2",
        "허용: DB1.DBX0.3(1비트), DB1.DBB0, DB1.DBW2, DB1.DBD4(1, 2, 4바이트),"
        " 또는 DB1.4, DB1.0.3(크기는 `type`에 따름). M0.3, MW2, I0.3, IW2, Q0.3, QW2도 가능",
    ),
    Entry(
        "{address!r} is not an S7 address; {allowed!t}", "S7 주소가 아닙니다: {address}. {allowed}"
    ),
    Entry(
        "{address!r}: no such data block; allowed: DB1 to DB{last}",
        "{address}: 데이터 블록 번호가 잘못되었습니다. 허용: DB1~DB{last}",
    ),
    Entry(
        "{address!r}: {letter} is {size!t} and {type} takes {width}; {advice!t}",
        "{address}: 크기가 맞지 않습니다({letter}: {size}, {type}: {width}바이트). {advice}",
    ),
    part("1 byte", "1바이트"),
    part("{count} bytes", "{count}바이트"),
    part(
        "write the byte alone, as in DB1.8, for {type}",
        "{type} 데이터 형식은 DB1.8처럼 바이트 번호만 쓰세요",
    ),
    part(
        "write {letter}, or choose another `type`",
        "다음 크기 문자를 쓰거나 `type`을 바꾸세요: {letter}",
    ),
    Entry(
        "{address!r}: {type} takes {size!t} and the area ends; allowed: 0 to {last}",
        "{address}: 영역의 끝을 넘습니다. 데이터 형식 {type}의 크기: {size}. 허용: 0~{last}",
    ),
    Entry(
        "{address!r}: which bit? write .0 to .{last} behind the byte, as in DB1.DBX0.3 or M0.3,"
        " with `type` BOOL",
        "{address}: 비트 번호가 없습니다. 바이트 뒤에 .0~.{last} 중 하나를 쓰고"
        "(예: DB1.DBX0.3, M0.3) `type`은 BOOL로 하세요",
    ),
    Entry(
        "{address!r}: {letter} is no bit; write DB1.DBX0.3 or M0.3",
        "{address}: 비트 주소에 쓸 수 없는 크기 문자입니다: {letter}."
        " DB1.DBX0.3 또는 M0.3처럼 쓰세요",
    ),
)

_OPCUA: Final[tuple[Entry, ...]] = (
    part(
        "expected opc.tcp://HOST:PORT/PATH, for example opc.tcp://10.0.0.5:4840",
        "형식: opc.tcp://HOST:PORT/PATH, 예: opc.tcp://10.0.0.5:4840",
    ),
    Entry(
        "{conn!r} is not an OPC UA connection; {expected!t}",
        "OPC UA 연결 주소가 아닙니다: {conn}. {expected}",
    ),
    Entry(
        "no user or password in front of the host; write ?user=NAME&password_file=FILE",
        "호스트 앞에 사용자나 비밀번호를 쓸 수 없습니다. ?user=NAME&password_file=FILE처럼 쓰세요",
    ),
    Entry(
        "no password here; write password_file=FILE or password_env=VARIABLE",
        "여기에 비밀번호를 쓸 수 없습니다."
        " password_file=FILE 또는 password_env=VARIABLE처럼 쓰세요",
    ),
    Entry("{conn!r} has a # in it; write %23", "#은 그대로 쓸 수 없습니다: {conn}. %23으로 쓰세요"),
    Entry(
        "{name} is empty or has characters that nobody sees; write its value",
        "옵션 {name}: 비어 있거나 보이지 않는 문자가 있습니다. 값을 쓰세요",
    ),
    Entry(
        "{name} is for a secured connection; add security=Basic256Sha256",
        "옵션 {name}: 보안 연결에만 쓸 수 있습니다. security=Basic256Sha256 옵션을 추가하세요",
    ),
    Entry(
        "security={policy} needs the agent's own certificate and its key: add {missing!t}",
        "security={policy}: 에이전트의 인증서와 키가 필요합니다. 추가하세요: {missing}",
    ),
    part("{first}=FILE and {second}=FILE", "{first}=FILE, {second}=FILE"),
    Entry(
        "user_certificate and user_key go together: give both or neither",
        "user_certificate와 user_key는 함께 씁니다. 둘 다 쓰거나 둘 다 빼세요",
    ),
    Entry(
        "user and user_certificate are two ways to log in: give one of them",
        "user와 user_certificate는 서로 다른 로그인 방법입니다. 하나만 쓰세요",
    ),
    Entry("{name} without a user; add user=NAME", "옵션 {name}: user=NAME 옵션도 필요합니다"),
    Entry(
        "user needs a password: give one of password_file=FILE and password_env=VARIABLE",
        "user에는 비밀번호가 필요합니다."
        " password_file=FILE과 password_env=VARIABLE 중 하나를 쓰세요",
    ),
    part(
        "allowed: a node id like ns=2;s=Pump.Pressure, ns=2;i=1001, i=2258, ns=2;g=UUID,"
        " ns=2;b=BASE64, or with the namespace's URI nsu=http://vendor.com/plc;s=Pump.Pressure",
        "허용: 노드 ID, 예: ns=2;s=Pump.Pressure, ns=2;i=1001, i=2258, ns=2;g=UUID,"
        " ns=2;b=BASE64, 네임스페이스 URI를 쓰면 nsu=http://vendor.com/plc;s=Pump.Pressure",
    ),
    Entry("{address!r} is not a node id; {allowed!t}", "노드 ID가 아닙니다: {address}. {allowed}"),
    Entry(
        "{address!r}: namespace {namespace}; allowed: 0 to {last}",
        "{address}: 잘못된 네임스페이스: {namespace}. 허용: 0~{last}",
    ),
    Entry(
        "{address!r}: i={number}; allowed: 0 to {last}",
        "{address}: 잘못된 번호: i={number}. 허용: 0~{last}",
    ),
    Entry(
        "{address!r}: g={guid} is no GUID; it looks like 09087e75-8e5e-499b-954f-f2a9603db28a",
        "{address}: GUID가 아닙니다: g={guid}. 예: 09087e75-8e5e-499b-954f-f2a9603db28a",
    ),
    Entry(
        "{address!r}: b={data} is not Base64: {error}",
        "{address}: Base64가 아닙니다: b={data}: {error}",
    ),
    Entry(
        "{address!r}: longer than {most} characters", "{address}: 너무 깁니다. 허용: {most}자 이하"
    ),
    Entry(
        "{address!r}: an OPC UA server gives numbers, not {type}; write the type that the server"
        " shows, for example UINT16",
        "{address}: OPC UA 서버는 숫자를 보냅니다. 맞지 않는 데이터 형식: {type}."
        " 서버에 표시된 데이터 형식을 쓰세요, 예: UINT16",
    ),
)

_MQTT: Final[tuple[Entry, ...]] = (
    part(
        "expected mqtt://HOST:PORT or mqtts://HOST:PORT, for example mqtt://10.0.0.5",
        "형식: mqtt://HOST:PORT 또는 mqtts://HOST:PORT, 예: mqtt://10.0.0.5",
    ),
    Entry(
        "not a broker's address: {error}; {expected!t}",
        "브로커 주소가 아닙니다: {error}. {expected}",
    ),
    Entry(
        "no user or password before the host: write ?user=...&password_file=...",
        "호스트 앞에 사용자나 비밀번호를 쓸 수 없습니다."
        " ?user=...&password_file=... 옵션으로 쓰세요",
    ),
    Entry(
        "{conn!r} is not a broker's address; {expected!t}",
        "브로커 주소가 아닙니다: {conn}. {expected}",
    ),
    Entry(
        "only options may follow the port; {expected!t}",
        "포트 뒤에는 옵션만 올 수 있습니다. {expected}",
    ),
    Entry("port 0; allowed: 1 to 65535", "포트 0은 쓸 수 없습니다. 허용: 1~65535"),
    Entry(
        "ca, cert and key are for TLS: write mqtts://",
        "ca, cert, key는 TLS에만 쓸 수 있습니다. mqtts://로 쓰세요",
    ),
    Entry(
        "cert and key go together: give both or neither",
        "cert와 key는 함께 씁니다. 둘 다 쓰거나 둘 다 빼세요",
    ),
    Entry(
        "password_file needs user=, the name that the password belongs to",
        "password_file에는 그 비밀번호의 사용자 이름이 필요합니다. user= 옵션을 추가하세요",
    ),
    Entry(
        "a password does not stand in a map: write password_file=, a file",
        "맵에 비밀번호를 쓸 수 없습니다. password_file= 옵션에 파일을 지정하세요",
    ),
    Entry(
        "option {name}: allowed: printable text that is not empty",
        "옵션 {name}: 비워 둘 수 없고, 보이지 않는 문자도 쓸 수 없습니다",
    ),
    part(
        "expected a topic, for example factory/pump1/pressure, or a topic, # and a path into its"
        " JSON, for example factory/pump1#data.pressure",
        "형식: 토픽, 예: factory/pump1/pressure, 또는 토픽 뒤에 #과 JSON 안의 경로,"
        " 예: factory/pump1#data.pressure",
    ),
    Entry(
        "{address!r} has a wildcard, which stands for many topics; a tag is one value: write one"
        " row for each topic; {expected!t}",
        "여러 토픽을 뜻하는 와일드카드가 있습니다: {address}."
        " 태그 하나는 값 하나이므로 토픽마다 한 행씩 쓰세요. {expected}",
    ),
    Entry("{address!r} has no topic; {expected!t}", "토픽이 없습니다: {address}. {expected}"),
    Entry(
        "{address!r} is a shared subscription, which splits values; use the topic",
        "값을 나누어 받는 공유 구독입니다: {address}. 토픽만 쓰세요",
    ),
    Entry("U+{code} is not allowed in a topic", "토픽에 쓸 수 없는 문자입니다: U+{code}"),
    Entry(
        "a topic of {bytes} bytes and {levels} levels;"
        " allowed: {bytes_max} bytes, {levels_max} levels",
        "토픽이 {bytes}바이트, {levels}레벨입니다. 허용: {bytes_max}바이트, {levels_max}레벨 이하",
    ),
    Entry(
        "#{path} has ~ at {place}; write ~0 for ~, ~1 for /",
        "#{path}: 위치 {place}의 ~는 그대로 쓸 수 없습니다. ~는 ~0, /는 ~1로 쓰세요",
    ),
    Entry(
        "#{path} has an empty name; write names with a dot between them, #data.pressure, or"
        " #/data/pressure where a name has a dot itself",
        "#{path}: 빈 이름이 있습니다. 이름 사이에 점을 찍어 #data.pressure처럼 쓰고,"
        " 이름에 점이 있으면 #/data/pressure처럼 쓰세요",
    ),
)

_SIMULATED: Final[tuple[Entry, ...]] = (
    Entry(
        "{conn!r} is not a simulated connection; expected sim://NAME",
        "시뮬레이션 연결 주소가 아닙니다: {conn}. 형식: sim://NAME",
    ),
    Entry(
        "{address!r} is not a cell; allowed: 0 to {last}",
        "시뮬레이션 셀 번호가 아닙니다: {address}. 허용: 0~{last}",
    ),
)

PROTOCOLS: Final[tuple[Entry, ...]] = (*_ANY, *_MODBUS, *_S7, *_OPCUA, *_MQTT, *_SIMULATED)
"""First what several protocols say alike."""
