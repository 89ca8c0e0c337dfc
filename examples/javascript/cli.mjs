// API=… TOKEN=… node cli.mjs coupon 1          asks for coupon 1
// API=… TOKEN=… node cli.mjs order 3x2 5x1     orders two of product 3 and one of product 5
// KEY=… is the key of the intention, where it is to survive this process. Exits with 0 if it succeeded.
import { randomUUID } from "node:crypto";
import { Refused, take } from "./firstcome.mjs";

// Node 18 has it only here.
globalThis.crypto ??= (await import("node:crypto")).webcrypto;

const { API: api, TOKEN: token, KEY: key = randomUUID() } = process.env;
const [what, ...rest] = process.argv.slice(2);
const wishes = {
  coupon: () => ({ path: `/api/coupons/${rest[0]}/issue` }),
  order: () => {
    const items = rest.map((item) => item.split("x").map(Number));
    return {
      path: "/api/orders",
      body: { items: items.map(([productId, quantity = 1]) => ({ productId, quantity })) },
    };
  },
};
if (!api || !token || !(what in wishes) || rest.length === 0) {
  console.error("usage: API=… TOKEN=… node cli.mjs coupon ID | order IDxQUANTITY…");
  process.exit(2);
}

const onPlace = ({ position, estimatedSeconds }) => {
  if (position) console.error(`place ${position}, about ${estimatedSeconds ?? "?"} s`);
};
try {
  const job = await take({ api, token, key, onPlace, ...wishes[what]() });
  console.log(JSON.stringify(job));
  process.exitCode = job.status === "succeeded" ? 0 : 1;
} catch (error) {
  console.error(error instanceof Refused ? `${error.code}: ${error.message}` : error);
  process.exitCode = 1;
}
