// Texts of the page of the address map.

import { addWords } from "./words.js";

addWords({
  // choosing
  drop_here: ["새 주소 맵을 여기에 끌어다 놓거나", "Drop another address map here, or"],
  choose_file: ["파일 선택", "Choose a file"],
  drop_what: [
    "CSV 또는 Excel(.xlsx). 적용하기 전에 무엇이 바뀌는지 먼저 보여 줍니다.",
    "CSV or Excel (.xlsx). What it changes is shown before anything is applied.",
  ],
  checking: ["{} 확인 중", "Checking {}"],
  applying: ["적용 중", "Applying"],
  cancel: ["취소", "Cancel"],
  close: ["닫기", "Close"],
  again: ["다시 시도", "Try again"],
  too_large: ["파일이 너무 큽니다: 최대 {}", "The file is too large: at most {}"],
  unreadable: [
    "브라우저가 이 파일을 읽을 수 없습니다. 선택한 뒤에 바뀌었다면 다시 선택하세요.",
    "The browser can't read this file. If it was changed after it was chosen, choose it again.",
  ],
  not_possible: ["할 수 없습니다", "This is not possible"],
  no_answer: ["대시보드 서버가 응답하지 않습니다", "The dashboard's server does not answer"],

  // problems
  wrong_title: ["{}에 고칠 곳이 있습니다", "{} can't be used yet"],
  wrong_why: [
    "아무것도 바뀌지 않았습니다. 아래를 고친 뒤 파일을 다시 선택하세요.",
    "Nothing has changed. Correct what is listed, then choose the file again.",
  ],
  problems_all: ["고칠 곳 {}", "{} to correct"],
  problems_shown: ["처음 {}건", "the first {}"],
  line: ["행", "Line"],
  column: ["열", "Column"],
  message: ["문제와 허용되는 값", "What is wrong, what is allowed"],
  whole_file: ["파일 전체", "file"],
  row_of_file: ["파일의 {}행 부근", "The file around line {}"],

  // plan
  plan_title: ["적용하면 바뀌는 것: {}", "What applying {} does"],
  plan_back: ["되돌리면 바뀌는 것: 버전 {}", "What going back to version {} does"],
  plan_nothing: ["태그는 하나도 바뀌지 않습니다.", "No tag changes."],
  rows_added: ["추가되는 태그", "Tags added"],
  rows_changed: ["변경되는 태그", "Tags changed"],
  rows_removed: ["삭제되는 태그", "Tags removed"],
  connections_kept: ["그대로인 연결", "Connections kept"],
  connections_changed: ["끊지 않고 변경되는 연결", "Connections changed, without closing them"],
  connections_begun: ["새로 여는 연결", "Connections begun"],
  connections_ended: ["닫는 연결", "Connections ended"],
  series_begun: ["새로 시작하는 시리즈", "Series begun"],
  series_ended: [
    "끝나는 시리즈 (저장된 데이터는 남습니다)",
    "Series ended (what is stored of them stays)",
  ],
  list_more: ["외 {}개", "{} more"],
  load: ["부하", "Load"],
  before: ["전", "Before"],
  after: ["후", "After"],
  load_tags: ["태그", "Tags"],
  load_connections: ["연결", "Connections"],
  load_requests: ["초당 요청", "Requests per second"],
  load_rows: ["하루 행 수 (최대)", "Rows per day, at most"],
  load_journal: ["끊겼을 때 저널이 버티는 시간", "Journal lasts in an outage"],
  load_verdict: ["판정", "Verdict"],
  fits: ["가능", "Fits"],
  tight: ["빠듯함", "Tight"],
  impossible: ["불가능", "Impossible"],
  impossible_why: [
    "이 맵은 요청한 주기를 지킬 수 없습니다. 주기를 늘리거나 태그를 줄이세요.",
    "These periods can't be kept up with. Make periods longer, or read fewer tags.",
  ],
  apply: ["적용", "Apply"],
  apply_back: ["되돌리기: 버전 {}", "Go back to version {}"],
  conflict: ["그 사이 주소 맵이 바뀌었습니다", "The address map has been changed meanwhile"],
  conflict_why: [
    "아무것도 바꾸지 않았습니다. 지금 실행 중인 맵과 다시 비교하세요.",
    "Nothing was changed. Compare with the map that runs now.",
  ],
  compare_again: ["다시 비교", "Compare again"],

  // confirmation
  sure_back: ["이 버전으로 되돌릴까요? (버전 {})", "Go back to version {}?"],
  sure_back_why: [
    "맵 파일을 그 버전의 내용으로 바꾸고 바로 적용합니다. 지금 버전은 목록에 남습니다.",
    "The map's file becomes that version and is applied at once. The present one stays in the list.",
  ],
  sure_impossible: ["그래도 적용할까요?", "Apply it all the same?"],

  // applied
  applied_title: ["적용했습니다: 버전 {}", "Applied: version {}"],
  applied_unkept: ["적용했습니다", "Applied"],
  applied_counts: ["{} 추가", "{} added"],
  applied_changed: ["{} 변경", "{} changed"],
  applied_removed: ["{} 삭제", "{} removed"],
  applied_same: ["이 맵이 이미 실행 중입니다.", "This map was running already."],
  new_cards: ["새 태그가 있는 장치", "Devices with new tags"],
  new_cards_wait: ["카드를 기다리는 중…", "Waiting for the cards…"],
  to_home: ["홈에서 보기", "See the home page"],

  // running
  running: ["실행 중인 맵", "The running map"],
  file_path: ["파일", "File"],
  hash: ["해시", "Hash"],
  map_version: ["버전", "Version"],
  applied_at: ["적용 시각", "Applied"],
  by: ["{}", "by {}"],
  download_running: ["실행 중인 맵 내려받기", "Download the running map"],
  file_differs: [
    "파일에 있는 맵은 실행 중인 맵이 아닙니다",
    "The map in the file is not the one that runs",
  ],
  file_differs_since: [
    "{}부터. 파일을 고치면 저절로 적용됩니다. 여기서 다른 맵을 적용하거나 이전 버전으로 되돌려도 됩니다.",
    "Since {}. As soon as the file is right it is applied by itself; or apply another map here, or go back to a version.",
  ],
  for_admins: ["관리자만 볼 수 있는 페이지입니다", "This page is for admins"],
  map_away: ["에이전트의 맵에 접근할 수 없습니다", "The agent's map is out of reach"],

  // versions
  versions: ["버전", "Versions"],
  versions_kept: ["{}개 보관", "{} kept"],
  version_number: ["버전", "Version"],
  when_applied: ["시각", "When"],
  who: ["누가", "Who"],
  how: ["방법", "How"],
  how_start: ["시작", "start"],
  how_file: ["파일 변경", "file changed"],
  how_upload: ["업로드", "upload"],
  how_rollback: ["되돌림: 버전 {}", "back to {}"],
  change: ["변경 내용", "Change"],
  actions: ["작업", "Actions"],
  is_running: ["실행 중", "running"],
  download: ["내려받기", "Download"],
  download_version: ["버전 {} 내려받기", "Download version {}"],
  go_back: ["되돌리기", "Go back"],
  go_back_to: ["되돌리기(먼저 보기): 버전 {}", "Go back to version {}: preview"],
  no_versions: ["아직 버전이 없습니다.", "There are no versions yet."],
});
