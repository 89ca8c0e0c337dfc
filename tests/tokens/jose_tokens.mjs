// Prints tokens of each algorithm, and the set of their public keys, as jose makes them.
import { SignJWT, exportJWK, generateKeyPair } from 'jose';

const tokens = {};
const keys = [];
for (const alg of ['RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', 'ES256', 'ES384', 'EdDSA']) {
  const { publicKey, privateKey } = await generateKeyPair(alg, { extractable: true });
  tokens[alg] = await new SignJWT({ realm_access: { roles: ['admin'] } })
    .setProtectedHeader({ alg, kid: alg })
    .setSubject('7')
    .setIssuer('https://issuer.example/')
    .setAudience(['shop', 'other'])
    .setIssuedAt()
    .setExpirationTime(4102444800)
    .sign(privateKey);
  keys.push({ ...(await exportJWK(publicKey)), kid: alg, use: 'sig' });
}
console.log(JSON.stringify({ tokens, jwks: { keys } }, null, 1));
