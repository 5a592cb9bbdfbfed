// The page of one device. What it looks at is asked for first, before anything is drawn.

import "./main.js";
import "./watched.js";
import "./player.js";
import "./about.js";
import "./rows.js";
