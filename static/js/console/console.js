// The console's own behaviour: choosing rows, keeping what was chosen and opened while live parts change, instant filters.
import { startKeeping } from "./keeping.js";
import { startChoosing } from "./choosing.js";
import { startFilters } from "./filters.js";
import { startConditions } from "./conditions.js";
import { startZones } from "./zones.js";

startKeeping();
startChoosing();
startFilters();
startConditions();
startZones();
