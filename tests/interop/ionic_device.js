// A page of an app with cordova-plugin-ionic, as far as the plugin needs one. One run is one
// page load; a reload of the web view is another run on the same folder.
// Usage: node ionic_device.js PLUGIN FOLDER HOST APP CALL[:JSON]...
const fs = require("fs");
const path = require("path");

const [plugin, folder, host, appId, ...calls] = process.argv.slice(2);
const data = path.join(folder, "files");
fs.mkdirSync(data, { recursive: true });

const stateFile = (name) => path.join(folder, `${name}.json`);
const load = (name, otherwise) =>
  fs.existsSync(stateFile(name)) ? JSON.parse(fs.readFileSync(stateFile(name))) : otherwise;
const save = (name, value) => {
  fs.writeFileSync(stateFile(name), JSON.stringify(value));
  return value;
};

const native = {
  appId, host, disabled: false, channel: "production", updateMethod: "none", maxVersions: 2,
  minBackgroundDuration: 30, binaryVersion: "1.0.0", binaryVersionName: "1.0.0",
  binaryVersionCode: 1,
};

// What the plugin's native half does on Android, action by action.
const actions = {
  getAppInfo: () => ({
    platform: "android", platformVersion: "14", version: 1, binaryVersionCode: 1,
    bundleName: "test.app", bundleVersion: "1.0.0", binaryVersionName: "1.0.0",
    device: "device-1", dataDirectory: `file://${data}/`,
  }),
  getPreferences: () => ({ updates: {}, ...load("saved", {}), ...native, ...load("custom", {}) }),
  setPreferences: (preferences) => save("saved", preferences),
  configure: (settings) => save("custom", { ...load("custom", {}), ...settings }),
  copyTo: ({ source, target }) =>
    fs.cpSync(path.join(folder, source.path), target, { recursive: true }),
  remove: ({ target }) => fs.rmSync(target, { recursive: true }),
  downloadFile: async ({ url, target }) => {
    const response = await network(url);
    if (!response.ok) throw new Error(url);
    fs.mkdirSync(path.dirname(target), { recursive: true });
    fs.writeFileSync(target, Buffer.from(await response.arrayBuffer()));
  },
};

function stickyChannel() {
  const waiting = [];
  let fired = false;
  return {
    subscribe: (handler) => (fired ? handler() : waiting.push(handler)),
    fire: () => {
      fired = true;
      waiting.splice(0).forEach((handler) => handler());
    },
  };
}

const network = fetch;
const channel = {
  onNativeReady: stickyChannel(),
  createSticky: (name) => (channel[name] = stickyChannel()),
  waitForInitialization: () => {},
};
let current = load("next", load("page", path.join(folder, "www")));
fs.rmSync(stateFile("next"), { force: true });

Object.assign(globalThis, {
  window: globalThis,
  document: { addEventListener: () => {} },
  WEBVIEW_SERVER_URL: "http://localhost",
  cordova: {
    require: () => channel,
    exec: (done, failed, _service, action, args = []) =>
      setImmediate(async () => {
        try {
          done(structuredClone(await actions[action](...structuredClone(args))));
        } catch (error) {
          failed(error.message);
        }
      }),
  },
  Ionic: {
    WebView: {
      getServerBasePath: (done) => done(current),
      setServerBasePath: (where) => (current = save("next", where)),
      persistServerBasePath: () => save("page", current),
    },
  },
  fetch: (url, options) => {
    if (!String(url).startsWith("http://localhost/")) return network(url, options);
    const file = path.join(current, new URL(url).pathname);
    return Promise.resolve(new Response(fs.existsSync(file) ? fs.readFileSync(file) : "[]"));
  },
});
Object.defineProperty(globalThis, "navigator", { value: { onLine: true }, configurable: true });
console.log = console.error; // standard output is for the answers

const { deploy } = require(plugin);
channel.onNativeReady.fire();

(async () => {
  const answers = [];
  for (const call of calls) {
    const [, name, argument] = /^([^:]+):?(.*)$/s.exec(call);
    try {
      answers.push(await deploy[name](...(argument ? [JSON.parse(argument)] : [])));
    } catch (error) {
      answers.push({ rejected: String(error.message || error) });
    }
  }
  await new Promise((done) => setTimeout(done, 50));
  process.stdout.write(JSON.stringify({ answers, page: current }));
  process.exit(0);
})();
