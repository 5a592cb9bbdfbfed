"""Who may look at the dashboard.

What it promises
----------------
* On loopback without a users file everybody on the machine looks, as admin; a request that names
  another host is refused, so that no web page reaches the dashboard by a name that it points at
  127.0.0.1 (DNS rebinding). On any other address the dashboard does not start without users.
* With users, nothing of the application is answered without a session: no page, no route, no
  file, no websocket. What is open: `GET /healthz`, `/login`.
* A removed user, a new password or another role ends that user's sessions at once: at the next
  request, and at the next message of an open websocket or stream, at most one second later.
* Nothing is written at run time. Sessions live in signed cookies and survive a restart.
* Other web sites can neither act in a user's name nor read: unsafe requests and websockets must
  come from our own origin, no answer carries a CORS header, and no page can be framed.
* Only the role admin reaches what changes the address map (map_routes.py).
* Guessing is slow: some tries are free for a user name and for an address, then each one costs a
  wait that doubles. An unknown name takes as long as a known one.

What it does not promise
------------------------
* Without TLS whoever sits on the wire reads passwords and cookies.
* Signing out clears the browser's cookie; a copy of it stays good until it expires or the password
  is changed.
* Somebody who guesses at a user's password from many addresses can keep that user from signing in
  (not from working on: an open session is not touched).
* Behind a reverse proxy all users share the proxy's address, and with it the tries.

How the package is made: `exposure` decides at start; `users` is the file, `passwords` its hashes,
`command` and `changes` change it. `guard` stands in front of the application: it asks `sessions`
who comes, lets `login` handle the form with `limiter` and `pages`, and `headers` completes every
answer.
"""
