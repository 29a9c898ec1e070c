// Asks the broker for a ticket and for how the desktop is. Answers are plain objects; nothing here throws.

const token = () => JSON.parse(document.body.getAttribute("hx-headers"))["X-CSRFToken"];

async function ask(url, options) {
  try {
    const response = await fetch(url, { credentials: "same-origin", headers: { "HX-Request": "true", ...options?.headers }, ...options });
    const isJson = response.headers.get("content-type")?.startsWith("application/json");
    return { status: response.status, ...(isJson ? await response.json() : {}) };
  } catch {
    return { status: 0 };
  }
}

/** {status, url, subprotocols}, or {status: 409, message, operation} if the desktop is not ready. Status 0: no answer. */
export const askTicket = (url) => ask(url, { method: "POST", headers: { "X-CSRFToken": token(), "HX-Request": "true" } });

/** {status, power, label, steps, problem, reference} */
export const askState = (url) => ask(url);
