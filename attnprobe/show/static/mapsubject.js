/** What a map is of: one place or two, with what is known of their heads, once that is here. */

/**
 * `follow(places, changed)` looks at other places; `changed` is called once `current` is of them, or `error` says why not.
 */
export function mapSubject(app, { changed }) {
  const samples = new Map();
  let turn = 0;
  let wanted = "";
  const subject = { current: null, error: null, title: "", busy: false, follow };

  function follow(places, names = new Set()) {
    const key = JSON.stringify(places);
    if (key === wanted && !names.has("data")) return;
    wanted = key;
    const mine = ++turn;
    subject.busy = true;
    learn(places)
      .then((current) => mine === turn && Object.assign(subject, { current, error: null, title: current.title }))
      .catch((error) => mine === turn && Object.assign(subject, { current: null, error: error.message }))
      .finally(() => {
        if (mine !== turn) return;
        subject.busy = false;
        changed();
      });
  }

  async function learn(places) {
    const infos = await Promise.all(places.map(headOf));
    const sites = await Promise.all(places.map(siteOf));
    const shape = [0, 1].map((axis) => Math.min(...infos.map((info) => info.shape[axis])));
    const [{ run, sample }] = places;
    const { site, sequences } = sites[0];
    const tokens = [site.queries, site.keys].map((name) => (name in sequences ? app.tokens(run, sample, name, sequences[name]) : null));
    const last = Math.min(...infos.map((info) => info.last));
    return { places, infos, shape, tokens, last, title: infos.map((info) => info.title).join(" minus ") };
  }

  async function headOf(place) {
    const { site } = await siteOf(place);
    if (!site.weights.includes(place.head)) {
      const others = site.weights.length ? `weights are kept of its heads ${site.weights.join(", ")}` : "none were of any of its heads";
      throw new Error(`no weights were kept of head ${place.head} of ${site.label}; ${others}`);
    }
    return app.headInfo(place);
  }

  /** The site of a place, also of another sample or run. */
  async function siteOf({ run, sample, site: key }) {
    const here = run === app.state.run && sample === app.state.sample;
    const found = here ? app.sample : await sampleOf(run, sample);
    const site = found.sites.find((one) => one.key === key);
    if (!site) throw new Error(`sample ${found.id} has no site ${key}`);
    return { site, sequences: found.sequences };
  }

  function sampleOf(run, sample) {
    const key = `${run}/${sample}`;
    if (!samples.has(key)) {
      const asked = app.source.ask("sample", { run, sample }).then(({ head }) => head);
      asked.catch(() => samples.delete(key));
      samples.set(key, asked);
    }
    return samples.get(key);
  }

  return subject;
}
