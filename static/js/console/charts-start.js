// On pages with charts alone: uPlot is not loaded anywhere else.
import { startCharts } from "./charts.js";

startCharts();
