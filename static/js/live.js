// Classic script, runs before the SSE extension: gives it an EventSource that sleeps while the page is hidden.
// A browser allows six connections to one address (HTTP/1.1); without this, seven open tabs would hang each other.
// Each time the stream begins, all pages' questions are asked again: what changed since the page was made, or in a gap
// (hidden, lost), went unheard, and nobody may say it twice.
(() => {
  const POLL_MS = 15000;
  const AGAIN_MS = 3000;

  class LiveSource extends EventTarget {
    constructor(url) {
      super();
      this.url = url;
      this.source = null;
      this.types = new Map();
      this.isEnded = false;
      this.onopen = this.onerror = null;
      this.visibility = () => (document.hidden ? this.rest() : this.wake());
      document.addEventListener("visibilitychange", this.visibility);
      this.poll = setInterval(() => this.readyState !== EventSource.OPEN && !document.hidden && this.askAll(), POLL_MS);
      if (!document.hidden) this.wake();
    }

    get readyState() {
      if (this.isEnded) return EventSource.CLOSED;
      return this.source ? this.source.readyState : EventSource.CONNECTING;
    }

    addEventListener(type, listener, options) {
      super.addEventListener(type, listener, options);
      if (this.types.has(type)) return;
      this.types.set(type, (event) => this.dispatchEvent(new MessageEvent(type, { data: event.data })));
      if (this.source) this.source.addEventListener(type, this.types.get(type));
    }

    wake() {
      if (this.isEnded || this.source) return;
      const source = (this.source = new EventSource(this.url));
      this.types.forEach((forward, type) => source.addEventListener(type, forward));
      source.onopen = (event) => {
        show("on");
        this.askAll();
        this.onopen?.(event);
      };
      source.onerror = (event) => {
        show("off");
        if (source.readyState !== EventSource.CLOSED) return;
        // Refused for good (signed out, a proxy whose server restarts). The extension would pause for up to a minute.
        this.rest();
        setTimeout(() => !document.hidden && this.wake(), AGAIN_MS);
      };
    }

    rest() {
      this.source?.close();
      this.source = null;
    }

    askAll() {
      this.types.forEach((_, type) => this.dispatchEvent(new MessageEvent(type, { data: "gap" })));
    }

    close() {
      this.isEnded = true;
      this.rest();
      clearInterval(this.poll);
      document.removeEventListener("visibilitychange", this.visibility);
    }
  }

  function show(state) {
    document.dispatchEvent(new CustomEvent("deskyard:stream", { detail: state }));
    document.querySelectorAll("[data-live]").forEach((mark) => {
      mark.dataset.live = state;
      mark.title = state === "on" ? mark.dataset.titleOn : mark.dataset.titleOff;
      const words = mark.querySelector("span");
      if (words) words.textContent = state === "on" ? mark.dataset.wordsOn : mark.dataset.wordsOff;
    });
  }

  htmx.createEventSource = (url) => new LiveSource(url);
})();
