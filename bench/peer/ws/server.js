'use strict';

// The stock server that most shops begin with: WebSockets in front, Redis behind. One
// process, the modules ws and redis, nothing tuned away: an answer waits for Redis, which
// waits for its disk, and whoever watches a SKU hears of it by publish and subscribe.
//
// It speaks the part of stockmesh's JSON protocol that a generator of load needs: count,
// sell (of one line), adjust, get and subscribe.

const { readFileSync } = require('node:fs');
const { join } = require('node:path');
const { WebSocketServer } = require('ws');
const { createClient } = require('redis');

const CHANNEL = 'stock';
const KEY_EXPIRY_SECONDS = 24 * 3600;
const HEARTBEAT_MS = 30_000;
const HELLO = JSON.stringify({ op: 'hello', limits: { in_flight: 256 } });

const rooms = new Map(); // by SKU: the sockets that watch it

function fail(error) {
  console.error(error);
  process.exit(1);
}

async function main() {
  const redis = createClient({ url: process.env.REDIS_URL });
  redis.on('error', fail);
  await redis.connect();
  const listener = redis.duplicate();
  listener.on('error', fail);
  await listener.connect();
  await listener.subscribe(CHANNEL, publish);
  const script = await redis.scriptLoad(readFileSync(join(__dirname, 'change.lua'), 'utf8'));

  const server = new WebSocketServer({ host: '127.0.0.1', port: Number(process.env.PORT), backlog: 4096 });
  server.on('error', fail);
  setInterval(() => server.clients.forEach(beat), HEARTBEAT_MS);
  server.on('connection', (socket) => {
    socket.watched = new Set();
    socket.alive = true;
    socket.on('pong', () => (socket.alive = true));
    socket.on('message', (data) => answer(redis, script, socket, data).catch(fail));
    socket.on('close', () => leave(socket));
    socket.on('error', () => {}); // close follows
    socket.send(HELLO);
  });
}

// beat ends a connection that has not answered the last ping: ws's own advice.
function beat(socket) {
  if (!socket.alive) return socket.terminate();
  socket.alive = false;
  socket.ping();
}

function leave(socket) {
  for (const sku of socket.watched) rooms.get(sku)?.delete(socket);
}

// publish tells those who watch any of the items. Most of them watch all: they get the
// same bytes, which are made once.
function publish(text) {
  const { items } = JSON.parse(text);
  const watching = new Set();
  for (const item of items) {
    for (const socket of rooms.get(item.sku) ?? []) watching.add(socket);
  }
  const whole = Buffer.from(text);
  for (const socket of watching) {
    const seen = items.filter((item) => socket.watched.has(item.sku));
    socket.send(seen.length === items.length ? whole : JSON.stringify({ op: 'stock', items: seen }), { binary: false });
  }
}

async function answer(redis, script, socket, data) {
  const message = JSON.parse(data);
  const commands = Array.isArray(message) ? message : [message];
  const changes = commands.filter((command) => command.op !== 'get' && command.op !== 'subscribe');
  for (const command of commands) {
    if (command.op === 'get') reply(socket, command.id, { ok: { items: await read(redis, command.skus) } });
    if (command.op === 'subscribe') await subscribe(redis, socket, command);
  }
  if (changes.length > 0) await change(redis, script, socket, changes);
}

function reply(socket, id, body) {
  socket.send(JSON.stringify({ id, ...body }));
}

async function read(redis, skus) {
  const counts = await redis.mGet(skus.map((sku) => 'stock:' + sku));
  return skus.flatMap((sku, i) => (counts[i] === null ? [] : [{ sku, location: 'main', on_hand: Number(counts[i]) }]));
}

async function subscribe(redis, socket, { id, skus }) {
  const items = await read(redis, skus);
  for (const sku of skus) {
    if (!rooms.has(sku)) rooms.set(sku, new Set());
    rooms.get(sku).add(socket);
    socket.watched.add(sku);
  }
  socket.send(JSON.stringify({ op: 'stock', snapshot: true, items }));
  reply(socket, id, { ok: {} });
}

// change carries out commands that came in one message in one call.
async function change(redis, script, socket, commands) {
  const keys = [];
  const args = [String(KEY_EXPIRY_SECONDS), CHANNEL];
  for (const command of commands) {
    const { sku, how, by } = meaning(command);
    keys.push('key:' + command.key, 'stock:' + sku);
    args.push(JSON.stringify(sku), how, String(by));
  }
  const left = await redis.evalSha(script, { keys, arguments: args });
  commands.forEach((command, i) => {
    if (left[i] < 0) {
      reply(socket, command.id, { error: { code: 'insufficient_stock', message: 'not enough stock' } });
    } else {
      reply(socket, command.id, { ok: { items: [{ sku: meaning(command).sku, on_hand: left[i] }] } });
    }
  });
}

function meaning(command) {
  switch (command.op) {
    case 'count':
      return { sku: command.sku, how: 'set', by: command.on_hand };
    case 'adjust':
      return { sku: command.sku, how: 'add', by: command.delta };
    case 'sell':
      if (command.lines.length === 1) return { sku: command.lines[0].sku, how: 'add', by: -command.lines[0].quantity };
  }
  throw new Error('unknown command: ' + JSON.stringify(command));
}

main().catch(fail);
