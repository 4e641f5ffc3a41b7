// What a page remembers of a member: theirs alone, also where several sign in with one browser.

const who = document.querySelector("[data-who]")?.dataset.who || "";

/** A value under a name, for this member; `local` outlives the tab. Without storage nothing is kept. */
export function keeper(name, { local = false } = {}) {
  const key = `ragsite:${name}:${who}`;
  const place = () => (local ? localStorage : sessionStorage);
  return {
    get() {
      try { return JSON.parse(place().getItem(key)); } catch { return null; }
    },
    set(value) {
      try {
        if (value) place().setItem(key, JSON.stringify(value));
        else place().removeItem(key);
      } catch { /* private windows forget it */ }
    },
  };
}
