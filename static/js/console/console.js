// The console's own behaviour: choosing rows, keeping what was chosen and opened while live parts change, instant filters.
import { startKeeping } from "./keeping.js";
import { startChoosing } from "./choosing.js";
import { startFilters } from "./filters.js";
import { startConditions } from "./conditions.js";
import { startZones } from "./zones.js";
import { startTabs } from "./tabs.js";
import { startTasks } from "./tasks.js";
import { startKeys } from "./keys.js";

startKeeping();
startChoosing();
startFilters();
startConditions();
startZones();
startTabs();
startTasks();
startKeys();
