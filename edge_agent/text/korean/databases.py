"""What is said of PostgreSQL: by who connects to it, by itself (plc_health), by edge-remote."""

from __future__ import annotations

from typing import Final

from edge_agent.text.catalogue import Entry, part

CONNECTING: Final[tuple[Entry, ...]] = (
    # what was being done
    Entry("connect", "연결"),
    Entry("read the cursor", "전달 위치 읽기"),
    Entry("deliver", "전달"),
    Entry("upkeep", "정비"),
    Entry("record the address map", "주소 맵 기록"),
    Entry("look at the server", "서버 확인"),
    Entry("health", "상태 점검"),
    Entry("minutes", "분 집계 조회"),
    Entry("newest", "최신 값 조회"),
    # why it failed
    Entry("the server closed the connection", "서버가 연결을 끊음"),
    Entry("server version {version} is too old", "서버 버전이 너무 낮음: {version}"),
    Entry("14 or newer", "14 이상이 필요합니다"),
    Entry("the database's encoding is {encoding}", "데이터베이스의 인코딩: {encoding}"),
    Entry("it can't store every name", "저장할 수 없는 이름이 있습니다"),
    Entry("not open", "열려 있지 않음"),
    Entry(
        "{count} refused rows wait to be written down by the journal",
        "거부된 행 {count}개를 저널이 아직 기록하지 못함",
    ),
    Entry(
        "the cursor of agent {id!r} is no longer at {place}",
        "에이전트 {id}의 전달 위치가 {place}에서 바뀜",
    ),
    Entry(
        "an earlier attempt succeeded, or another agent uses this journal",
        "앞선 시도가 성공했거나, 다른 에이전트가 이 저널을 쓰고 있습니다",
    ),
    # what to do
    Entry(
        "is the server overloaded, or the network cut?",
        "서버에 과부하가 걸렸는지, 네트워크가 끊겼는지 확인하세요",
    ),
    Entry(
        "is PostgreSQL running, and are host and port right?",
        "PostgreSQL이 실행 중인지, 호스트와 포트가 맞는지 확인하세요",
    ),
    Entry(
        "is the host right? In a password write @ ",
        "호스트가 맞는지 확인하세요. 비밀번호에서 바꿔 쓸 문자는 @ ",
    ),
    Entry("/ % as %40 %3A %2F %25", "/ % → %40 %3A %2F %25"),
    Entry(
        "this user must be able to read {files}",
        "이 사용자가 파일을 읽을 수 있어야 합니다: {files}",
    ),
    Entry(
        "run `edge-agent db init --dsn OWNER_DSN`",
        "`edge-agent db init --dsn OWNER_DSN` 명령을 실행하세요",
    ),
    Entry(
        "run `edge-agent db init --dsn OWNER_DSN`, then `GRANT {role} TO {user}`",
        "`edge-agent db init --dsn OWNER_DSN` 명령을 실행한 뒤 `GRANT {role} TO {user}` 문을"
        " 실행하세요",
    ),
    Entry("check the user and the password of the dsn", "dsn의 사용자와 비밀번호를 확인하세요"),
    Entry(
        "check user, sslmode, sslcert and sslkey of the dsn, and the server's pg_hba.conf",
        "dsn의 사용자, sslmode, sslcert, sslkey와 서버의 pg_hba.conf를 확인하세요",
    ),
    Entry(
        "create the database (ENCODING 'UTF8'), then run `edge-agent db init --dsn OWNER_DSN`",
        "데이터베이스를 만든(ENCODING 'UTF8') 뒤 `edge-agent db init --dsn OWNER_DSN` 명령을"
        " 실행하세요",
    ),
    Entry(
        "a parameter of the dsn that the server does not know? remove it",
        "dsn에 서버가 모르는 매개변수가 있으면 지우세요",
    ),
    Entry("the server's disk is full", "서버의 디스크가 가득 찼습니다"),
    Entry("free space on it", "공간을 확보하세요"),
    Entry("the server has no connection left", "서버에 남은 연결이 없습니다"),
    Entry("raise max_connections", "max_connections를 늘리세요"),
    Entry("a day's partition is missing", "하루치 파티션이 없습니다"),
    Entry(
        "`edge-agent db status --dsn OWNER_DSN` lists them",
        "`edge-agent db status --dsn OWNER_DSN` 명령으로 확인할 수 있습니다",
    ),
    Entry("another session holds a lock", "다른 세션이 잠금을 잡고 있습니다"),
    Entry("try again when it has finished", "끝난 뒤 다시 시도하세요"),
    Entry(
        "sslrootcert, sslcert and sslkey of the dsn must be PEM files that belong together",
        "dsn의 sslrootcert, sslcert, sslkey는 서로 맞는 PEM 파일이어야 합니다",
    ),
    Entry(
        "sslrootcert of the dsn must name the authority that signed the server's certificate",
        "dsn의 sslrootcert에 서버 인증서를 서명한 기관을 지정하세요",
    ),
    Entry(
        "renew the server's certificate, or set this machine's clock",
        "서버의 인증서를 갱신하거나 이 컴퓨터의 시계를 맞추세요",
    ),
    Entry(
        "write the dsn's host as the server's certificate has it (subjectAltName)",
        "dsn의 호스트를 서버 인증서에 있는 대로 쓰세요(subjectAltName)",
    ),
    Entry(
        "does the server know the authority that signed sslcert? its log says more",
        "서버가 sslcert를 서명한 기관을 아는지 확인하세요. 자세한 내용은 서버의 로그에 있습니다",
    ),
    Entry(
        "sslcert and sslkey of the dsn do not belong together",
        "dsn의 sslcert와 sslkey가 서로 맞지 않습니다",
    ),
    Entry("an encrypted sslkey needs sslpassword", "암호화된 sslkey에는 sslpassword가 필요합니다"),
    Entry(
        "create it with ENCODING 'UTF8' TEMPLATE template0",
        "ENCODING 'UTF8' TEMPLATE template0 옵션으로 만드세요",
    ),
    Entry(
        "if it lasts, the journal's disk refuses", "계속되면 저널의 디스크에 쓸 수 없는 것입니다"
    ),
    Entry("see the log", "로그를 확인하세요"),
    Entry(
        "if it repeats, give each agent its own agent_id and data_dir",
        "되풀이되면 에이전트마다 다른 agent_id와 data_dir를 지정하세요",
    ),
)

HEALTH: Final[tuple[Entry, ...]] = (
    # the server (sql/085_health.sql)
    Entry(
        "the oldest transaction id of {database} is {age} old and the server stops at 2.1 billion",
        "{database}의 가장 오래된 트랜잭션 ID 나이 {age}, 21억이 되면 서버가 멈춥니다",
    ),
    Entry(
        "look for old transactions in pg_stat_activity, pg_prepared_xacts and"
        " pg_replication_slots, then run VACUUM as superuser",
        "pg_stat_activity, pg_prepared_xacts, pg_replication_slots에서 오래된 트랜잭션을 찾은 뒤"
        " 슈퍼유저로 VACUUM을 실행하세요",
    ),
    Entry(
        "slot {slot} is lost, its WAL was removed and its subscriber gets nothing any more",
        "슬롯 {slot}: WAL이 지워져 구독자가 더 이상 데이터를 받지 못합니다",
    ),
    Entry(
        "run `edge-remote resync`, or drop the slot if its subscriber is gone for good",
        "`edge-remote resync` 명령을 실행하거나, 구독자가 완전히 없어졌으면 슬롯을 지우세요",
    ),
    Entry(
        "slot {slot} keeps {bytes} of WAL and is lost at {most}",
        "슬롯 {slot}: 보관 중인 WAL {bytes}, {most}에서 슬롯이 무효화됩니다",
    ),
    Entry(
        "is its subscriber up, and does it keep up?",
        "구독자가 실행 중인지, 제때 따라오는지 확인하세요",
    ),
    Entry(
        "slot {slot} has no subscriber and keeps {bytes} of WAL",
        "슬롯 {slot}: 구독자가 없고 보관 중인 WAL {bytes}",
    ),
    Entry(
        "is the remote up and in reach? If it is gone for good, run `edge-remote teardown`",
        "원격 서버가 실행 중이고 연결되는지 확인하세요. 완전히 없어졌으면"
        " `edge-remote teardown` 명령을 실행하세요",
    ),
    Entry(
        "nothing limits the WAL that is kept for an absent subscriber, and a full disk stops the"
        " server",
        "끊긴 구독자를 위해 쌓이는 WAL에 제한이 없어, 디스크가 가득 차면 서버가 멈춥니다",
    ),
    Entry(
        "rows of an edge were refused here",
        "엣지에서 온 행 가운데 거부된 것이 있습니다",
    ),
    Entry(
        "plc_refused has them with the reasons",
        "거부된 행과 이유는 plc_refused에 있습니다",
    ),
    Entry("delete them there when they are dealt with", "처리한 뒤 plc_refused에서 지우세요"),
    Entry(
        "rows lie in the landing table and are missing in plc_raw, because its trigger did not run",
        "수신 테이블의 트리거가 실행되지 않아 plc_raw에 들어가지 못한 행이 있습니다",
    ),
    Entry(
        "run `edge-remote setup`, then `edge-remote reconcile`",
        "`edge-remote setup`과 `edge-remote reconcile` 명령을 차례로 실행하세요",
    ),
    Entry(
        "the hours of plc_outbox are not made ahead any more",
        "plc_outbox의 파티션을 미리 만들지 못하고 있습니다",
    ),
    Entry(
        "does the upkeep of the agent run, and does its log complain? Rows are published all the"
        " same",
        "에이전트의 데이터베이스 정비가 실행되는지 로그를 확인하세요. 행은 그대로 발행됩니다",
    ),
    # PostgreSQL alone (sql/postgres/080_health.sql)
    Entry(
        "plc_1m is {minutes} minutes behind plc_raw", "plc_1m 집계가 plc_raw보다 {minutes}분 늦음"
    ),
    Entry(
        "does the upkeep of the agent (on the remote, edge-remote serve) run, and does its log"
        " complain?",
        "에이전트(원격에서는 edge-remote serve)의 정비가 실행되는지 로그를 확인하세요",
    ),
    Entry("{minutes} minutes wait for their rollup", "아직 집계하지 못한 시간: {minutes}분"),
    Entry("normal for a while after late rows", "늦은 행이 들어온 뒤 잠시는 정상입니다"),
    Entry(
        "otherwise the upkeep does not run or the server is too slow",
        "계속되면 정비가 실행되지 않거나 서버가 너무 느린 것입니다",
    ),
    Entry("no partition of plc_raw is ready for tomorrow", "내일 쓸 plc_raw 파티션이 없습니다"),
    Entry(
        "the oldest day of plc_raw should have been dropped {days} days ago",
        "plc_raw의 가장 오래된 날짜가 보관 기한을 {days}일 넘김",
    ),
    Entry(
        "does the upkeep run, or does a long query in pg_stat_activity hold plc_raw?",
        "정비가 실행되는지, pg_stat_activity에 plc_raw를 오래 잡은 쿼리가 있는지 확인하세요",
    ),
    # TimescaleDB (sql/timescale/080_health.sql)
    Entry(
        "{aggregate} is {interval} behind plc_raw, so what reads it is slow",
        "{aggregate} 집계가 plc_raw보다 {interval} 늦어 조회가 느립니다",
    ),
    Entry(
        "does its refresh job run? See timescaledb_information.job_stats and the server's log",
        "갱신 작업이 실행되는지 timescaledb_information.job_stats와 서버의 로그를 확인하세요",
    ),
    Entry(
        "background job {id} ({job!t}) has not succeeded for {interval}",
        "백그라운드 작업 {id}({job}): {interval} 동안 성공하지 못함",
    ),
    Entry("its last error", "마지막 오류"),
    Entry("see the server's log", "서버의 로그를 확인하세요"),
    Entry("the background job for {job!t} is missing", "백그라운드 작업이 없음: {job}"),
    Entry("run `edge-agent db init`", "`edge-agent db init` 명령을 실행하세요"),
    Entry("background job {id} ({job!t}) is paused", "백그라운드 작업 {id}({job}): 일시 중지됨"),
    Entry(
        "background job {id} ({job!t}) should have started {interval} ago",
        "백그라운드 작업 {id}({job}): 예정보다 {interval} 늦도록 시작하지 못함",
    ),
    Entry(
        "no worker is free or none is started",
        "빈 워커가 없거나 워커가 시작되지 않았습니다",
    ),
    Entry(
        "look for TimescaleDB in the server's log, and raise timescaledb.max_background_workers"
        " and max_worker_processes",
        "서버의 로그에서 TimescaleDB를 찾아보고, timescaledb.max_background_workers와"
        " max_worker_processes를 늘리세요",
    ),
    Entry(
        "background job {id} ({job!t}) has not come to its end for {interval}",
        "백그라운드 작업 {id}({job}): {interval} 동안 끝나지 않음",
    ),
    Entry("see pg_stat_activity", "pg_stat_activity를 확인하세요"),
    part("refresh of plc_1m", "plc_1m 갱신"),
    part("refresh of plc_1h", "plc_1h 갱신"),
    part("compression of plc_raw", "plc_raw 압축"),
    part("compression of plc_1m", "plc_1m 압축"),
    part("compression of plc_1h", "plc_1h 압축"),
    Entry(
        "{chunks} chunks of {table} should have been compressed two days ago and fill the disk",
        "압축이 이틀 넘게 밀려 디스크를 채우는 청크 {chunks}개({table})",
    ),
    Entry(
        "see the compression job in timescaledb_information.job_stats",
        "timescaledb_information.job_stats에서 압축 작업을 확인하세요",
    ),
    Entry(
        "the oldest chunk of plc_raw should have been dropped {days} days ago",
        "plc_raw의 가장 오래된 청크가 보관 기한을 {days}일 넘김",
    ),
    Entry(
        "see the job plc_expire in timescaledb_information.job_stats, and pg_stat_activity for a"
        " query that holds it",
        "timescaledb_information.job_stats의 plc_expire 작업과, pg_stat_activity에 이를 막는 쿼리가"
        " 있는지 확인하세요",
    ),
)

REPLICATION: Final[tuple[Entry, ...]] = (
    # the servers and the logins (remote/ends.py)
    Entry("PostgreSQL {version} is too old", "PostgreSQL 버전이 너무 낮음: {version}"),
    Entry("it must be {version} or newer", "{version} 이상이 필요합니다"),
    Entry("upgrade this server (pg_upgrade)", "이 서버를 업그레이드하세요(pg_upgrade)"),
    Entry(
        "the database's encoding is {encoding}, which can't store every name",
        "데이터베이스의 인코딩 {encoding}: 저장할 수 없는 이름이 있습니다",
    ),
    Entry(
        "the role {user} is not a superuser, and {needs!t}",
        "슈퍼유저가 아닌 역할 {user}: {needs}",
    ),
    part(
        "roles with REPLICATION and max_slot_wal_keep_size need one",
        "REPLICATION 역할과 max_slot_wal_keep_size에 슈퍼유저가 필요합니다",
    ),
    part("subscriptions need one", "구독에 슈퍼유저가 필요합니다"),
    Entry(
        "use another login in remote.{end}_dsn, or `ALTER ROLE {user} SUPERUSER` on this server",
        "remote.{end}_dsn에 다른 로그인을 쓰거나, 이 서버에서 `ALTER ROLE {user} SUPERUSER` 문을"
        " 실행하세요",
    ),
    Entry("{edge} and {remote} are on the same server", "{edge}, {remote}: 같은 서버에 있음"),
    Entry(
        "remote.edge_dsn and remote.remote_dsn must name two servers",
        "remote.edge_dsn과 remote.remote_dsn에는 서로 다른 서버를 지정하세요",
    ),
    Entry(
        "the clock of the {ahead} is {seconds} s ahead of the {behind}'s",
        "시계가 {seconds}초 어긋남({ahead} 쪽이 {behind} 쪽보다 빠름)",
    ),
    Entry("at most {seconds} s are allowed", "허용: {seconds}초 이하"),
    Entry(
        "run an NTP client on both (`timedatectl`)",
        "두 컴퓨터 모두 NTP로 시계를 맞추세요(`timedatectl`)",
    ),
    # publications, subscriptions and slots (remote/checks.py)
    Entry(
        "publication {name} carries {tables}",
        "발행 {name}: 다음 테이블을 직접 발행함({tables})",
    ),
    Entry(
        "the rows of a hypertable lie in chunks that no remote has, so its subscription stops"
        ' with "relation ... does not exist"',
        "하이퍼테이블의 행은 원격에 없는 청크에 있어"
        ' 구독이 "relation ... does not exist" 오류로 멈춥니다',
    ),
    Entry(
        "rows would go out twice, by plc_raw and by plc_outbox, and retention's and the"
        " partitions' changes with them",
        "행이 plc_raw와 plc_outbox에서 두 번 나가고, 보관 기한과 파티션 변경도 함께 나갑니다",
    ),
    Entry(
        '`DROP PUBLICATION "{name}"`, edge-remote publishes plc_outbox instead',
        '`DROP PUBLICATION "{name}"` 문을 실행하세요. edge-remote는 plc_outbox를 발행합니다',
    ),
    Entry(
        "subscription {name} writes into {tables}", "구독 {name}: 다음 테이블에 직접 씀({tables})"
    ),
    Entry(
        "its rows go into the hypertable's root, which no query reads, and are lost without an"
        " error",
        "행이 조회되지 않는 하이퍼테이블의 루트로 들어가 오류도 없이 없어집니다",
    ),
    Entry(
        "its rows would never reach plc_1m and plc_1h, and a duplicate would stop it",
        "행이 plc_1m과 plc_1h에 반영되지 않고, 중복 행이 있으면 구독이 멈춥니다",
    ),
    Entry(
        '`DROP SUBSCRIPTION "{name}"`, edge-remote lands rows by way of plc_outbox',
        '`DROP SUBSCRIPTION "{name}"` 문을 실행하세요. edge-remote는 plc_outbox로 행을 받습니다',
    ),
    Entry("the slot {slot} is lost", "슬롯이 무효화됨: {slot}"),
    Entry(
        "the remote was away for longer than the edge keeps WAL (max_slot_wal_keep_size)",
        "원격이 엣지의 WAL 보관 한도(max_slot_wal_keep_size)보다 오래 끊겨 있었습니다",
    ),
    Entry("run `edge-remote resync`", "`edge-remote resync` 명령을 실행하세요"),
    # a look at both (remote/state.py)
    Entry("the schema is not applied", "스키마가 적용되지 않음"),
    Entry("run `edge-remote setup`", "`edge-remote setup` 명령을 실행하세요"),
    Entry("the landing table or its trigger is missing", "수신 테이블이나 그 트리거가 없음"),
    Entry(
        "the outbox, its trigger or its publication is missing",
        "아웃박스나 그 트리거 또는 발행이 없음",
    ),
    Entry(
        "the outbox has no partition for the next hour",
        "아웃박스에 다음 시간의 파티션이 없음",
    ),
    Entry(
        "is the agent running, and is its postgres.dsn set? It does the outbox's upkeep",
        "에이전트가 실행 중인지, postgres.dsn이 설정되었는지 확인하세요."
        " 아웃박스는 에이전트가 정비합니다",
    ),
    Entry(
        "max_slot_wal_keep_size has no limit, so an absent remote would fill its disk",
        "max_slot_wal_keep_size에 제한이 없어 원격이 끊기면 디스크가 가득 찹니다",
    ),
    Entry(
        "{edge} does not replicate to {remote} as {name}",
        "복제가 설정되지 않음: {edge} → {remote}({name})",
    ),
    Entry(
        "{edge} keeps WAL for the slot {slot}, but {remote} has no such subscription",
        "{edge}: 슬롯 {slot} 때문에 WAL이 쌓이지만 {remote}에는 그 구독이 없음",
    ),
    Entry(
        "run `edge-remote teardown`, then `edge-remote setup`",
        "`edge-remote teardown`과 `edge-remote setup` 명령을 차례로 실행하세요",
    ),
    Entry("the subscription {name} was never started", "구독 {name}: 한 번도 시작되지 않음"),
    Entry(
        "the slot {slot} is gone, rows have been missed",
        "슬롯 {slot}: 없어져 놓친 행이 있음",
    ),
    Entry("the subscription {name} is disabled", "구독 {name}: 꺼져 있음"),
    Entry(
        "the subscription {name} is not connected to {edge}",
        "구독 {name}: 연결되지 않음({edge})",
    ),
    Entry("the log of the remote's server says why", "이유는 원격 서버의 로그에 있습니다"),
    Entry("it tries again each 5 s", "5초마다 다시 시도합니다"),
    Entry("the edge keeps WAL for a remote that is away", "원격이 끊겨 엣지에 WAL이 쌓이고 있음"),
    Entry(
        "the edge keeps WAL for a remote that is away, and its slot is lost in {hours} hours at the"
        " present rate",
        "원격이 끊겨 엣지에 WAL이 쌓이고 있음, 지금 속도면 {hours}시간 뒤 슬롯이 무효화됩니다",
    ),
    Entry("the edge's WAL limit is spent", "엣지의 WAL 한도를 다 씀"),
    Entry("the slot will be lost at any moment", "곧 슬롯이 무효화될 수 있습니다"),
    Entry("the remote is {seconds} s behind the edge", "원격이 엣지보다 {seconds}초 늦음"),
    Entry("the copy of the outbox has failed {times} times", "아웃박스 복사 {times}회 실패"),
    Entry(
        "the remote could not take {count} rows or more, most often because a clock was wrong",
        "원격이 받지 못한 행 {count}개 이상, 대개 시계가 틀릴 때 생깁니다",
    ),
    Entry(
        "see plc_refused there, and delete what you have looked at",
        "원격의 plc_refused를 확인하고, 확인한 행은 지우세요",
    ),
)

DATABASES: Final[tuple[Entry, ...]] = (*CONNECTING, *HEALTH, *REPLICATION)
"""All of them."""
