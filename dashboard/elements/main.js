// What every page loads. It runs before React does, and paints without it.

import "./live.js";
import "./search.js";
import "./preferences.js";
import "./banner.js";
import "./alarms.js";
import "./chips.js";
import "./grid.js";
