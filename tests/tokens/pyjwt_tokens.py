"""Prints tokens of each algorithm, and the set of their public keys, as PyJWT makes them."""

import json

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

CLAIMS = {
    "sub": "7",
    "iss": "https://issuer.example/",
    "aud": "shop",
    "exp": 4102444800,
    "roles": ["admin"],
}
rsa_key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
KEYS = {
    "RS256": rsa_key,
    "RS384": rsa_key,
    "RS512": rsa_key,
    "PS256": rsa_key,
    "PS384": rsa_key,
    "PS512": rsa_key,
    "ES256": ec.generate_private_key(ec.SECP256R1()),
    "ES384": ec.generate_private_key(ec.SECP384R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate(),
}

tokens, keys = {}, {}
for algorithm, key in KEYS.items():
    name = type(key).__name__ + (key.curve.name if hasattr(key, "curve") else "")
    tokens[algorithm] = jwt.encode(CLAIMS, key, algorithm, headers={"kid": name})
    public = get_default_algorithms()[algorithm].to_jwk(key.public_key(), as_dict=True)
    public.pop("key_ops", None)
    keys[name] = {**public, "kid": name}
print(json.dumps({"tokens": tokens, "jwks": {"keys": list(keys.values())}}, indent=1))
