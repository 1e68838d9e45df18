// What a Node service does with the npm package `consul`.
const assert = require("node:assert");
const http = require("node:http");
const Consul = require("consul");

const sleep = (ms) => new Promise((done) => setTimeout(done, ms));

async function until(what, condition) {
  for (let tries = 0; tries < 100; tries += 1) {
    if (await condition()) return;
    await sleep(100);
  }
  throw new Error(`waited in vain until ${what}`);
}

async function main() {
  const consul = new Consul({ host: "127.0.0.1", port: Number(process.argv[2]) });
  let tried = 0;
  const step = async (name, action) => {
    await action();
    tried += 1;
    console.log(`ok: ${name}`);
  };

  await step("who leads, who is there", async () => {
    assert.match(await consul.status.leader(), /:\d+$/);
    assert.strictEqual((await consul.agent.members()).length, 1);
    assert.ok((await consul.agent.self()).Config.NodeName);
  });
  await step("keys", async () => {
    assert.strictEqual(await consul.kv.set("app/one", "1"), true);
    assert.strictEqual((await consul.kv.get("app/one")).Value, "1");
    assert.deepStrictEqual(await consul.kv.keys("app/"), ["app/one"]);
    const { ModifyIndex } = await consul.kv.get("app/one");
    assert.strictEqual(await consul.kv.set({ key: "app/one", value: "2", cas: ModifyIndex }), true);
    assert.strictEqual(Boolean(await consul.kv.set({ key: "app/one", value: "3", cas: ModifyIndex })), false);
    await consul.kv.del({ key: "app/", recurse: true });
    assert.strictEqual(await consul.kv.get("app/one"), undefined);
  });
  await step("a lock is held by one session alone", async () => {
    const sessions = await Promise.all([1, 2].map(() => consul.session.create({ ttl: "10s", lockdelay: "0s" })));
    const take = (session) => consul.kv.set({ key: "lock", value: "x", acquire: session.ID });
    assert.strictEqual(await take(sessions[0]), true);
    assert.strictEqual(Boolean(await take(sessions[1])), false);
    await consul.session.destroy(sessions[0].ID);
    await until("the lock is free", () => take(sessions[1]));
  });

  let healthy = true;
  const service = http.createServer((_, answer) => answer.writeHead(healthy ? 200 : 500).end("so it is"));
  await new Promise((ready) => service.listen(0, "127.0.0.1", ready));
  const port = service.address().port;
  await step("the server runs the check of a service", async () => {
    await consul.agent.service.register({
      name: "web", id: "web-1", address: "127.0.0.1", port,
      check: { http: `http://127.0.0.1:${port}/`, interval: "1s", timeout: "1s" },
    });
    const passing = async () => (await consul.health.service({ service: "web", passing: true })).length;
    await until("it passes", async () => (await passing()) === 1);
    healthy = false;
    await until("it is critical", async () => (await passing()) === 0);
    healthy = true;
    await until("it passes again", async () => (await passing()) === 1);
  });
  await step("a watch is told of what changes", async () => {
    const watch = consul.watch({ method: consul.kv.get, options: { key: "watched" } });
    const seen = [];
    watch.on("change", (data) => seen.push(data && data.Value));
    watch.on("error", () => {});
    await until("it has begun", async () => seen.length > 0);
    await consul.kv.set("watched", "news");
    await until("it is told", async () => seen.includes("news"));
    watch.end();
  });
  await step("events and transactions", async () => {
    const event = await consul.event.fire("deploy", "v2");
    await until("the event is listed", async () => (await consul.event.list("deploy")).some((it) => it.ID === event.ID));
    const result = await consul.transaction.create([{ KV: { Verb: "set", Key: "t", Value: "YQ==" } }]);
    assert.strictEqual(result.Results.length, 1);
  });
  service.close();
  console.log(`${tried} passed, 0 failed`);
  process.exit(0);
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
