/** The server's page. */

import { mountPage } from "./main.js";

mountPage(document.getElementById("explorer"));
