"""What a token says of its objects, and what is not taken for granted of it."""

import pytest
from asn1crypto.core import OctetString
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from pkcs11 import Attribute, KeyType
from pkcs11.exceptions import AttributeTypeInvalid
from privyseald.keyholder.hsm_objects import assert_attributes, public_key
from privyseald.keyholder.keystore import KeyUnusableError
from privyseald.keyholder.token_uri import TokenUri
from privyseald.model.schemes import Algorithm

GOOD = {
    Attribute.SENSITIVE: True,
    Attribute.EXTRACTABLE: False,
    Attribute.ALWAYS_SENSITIVE: True,
    Attribute.NEVER_EXTRACTABLE: True,
    Attribute.LOCAL: True,
}
URI = TokenUri(label="k")


class Object(dict):
    """A token's object: what it does not have, it says it knows not of."""

    def __missing__(self, name):
        raise AttributeTypeInvalid


def test_a_key_that_was_made_there_is_told_of_so():
    told = assert_attributes(Object(GOOD), URI, generated=True)
    assert told["origin"] == "generated in the token"
    imported = assert_attributes(Object({**GOOD, Attribute.LOCAL: False}), URI, generated=False)
    assert imported["origin"] == "imported"


@pytest.mark.parametrize("generated", [True, False])
@pytest.mark.parametrize(
    ("attribute", "value"),
    [
        (Attribute.SENSITIVE, False),
        (Attribute.SENSITIVE, None),
        (Attribute.EXTRACTABLE, True),
        (Attribute.EXTRACTABLE, None),
    ],
)
def test_a_key_that_could_leave_is_refused_also_if_the_token_does_not_say(
    attribute, value, generated
):
    has = {name: given for name, given in {**GOOD, attribute: value}.items() if given is not None}
    with pytest.raises(KeyUnusableError, match="must be sensitive"):
        assert_attributes(Object(has), URI, generated=generated)


@pytest.mark.parametrize(
    "attribute", [Attribute.ALWAYS_SENSITIVE, Attribute.NEVER_EXTRACTABLE, Attribute.LOCAL]
)
def test_a_key_that_was_not_made_as_asked_is_refused(attribute):
    other = Object({**GOOD, attribute: False})
    with pytest.raises(KeyUnusableError, match="did not make the key as asked"):
        assert_attributes(other, URI, generated=True)
    # Of one that was there before, that is its history, and told.
    assert assert_attributes(other, URI, generated=False)[attribute.name.lower()] == "false"


def rsa_object(bits):
    numbers = rsa.generate_private_key(65537, bits).public_key().public_numbers()
    return Object(
        {
            Attribute.MODULUS: numbers.n.to_bytes(bits // 8),
            Attribute.PUBLIC_EXPONENT: numbers.e.to_bytes(3),
        }
    )


def test_a_key_is_of_the_kind_and_size_that_it_was_to_be():
    small = rsa_object(2048)
    assert public_key(small, KeyType.RSA, Algorithm.RSA_2048).key_size == 2048
    p256 = ec.generate_private_key(ec.SECP256R1()).public_key()
    point = p256.public_numbers()
    encoded = b"\x04" + point.x.to_bytes(32) + point.y.to_bytes(32)
    curve = Object({Attribute.EC_POINT: OctetString(encoded).dump()})
    assert public_key(curve, KeyType.EC, Algorithm.P256) == p256
    raw = ed25519.Ed25519PrivateKey.generate().public_key().public_bytes_raw()
    edwards = Object({Attribute.EC_POINT: OctetString(raw).dump()})
    assert public_key(edwards, KeyType.EC_EDWARDS, Algorithm.ED25519).public_bytes_raw() == raw
    for source, kind, algorithm in (
        (small, KeyType.RSA, Algorithm.RSA_3072),
        (small, KeyType.RSA, Algorithm.P256),
        (curve, KeyType.EC, Algorithm.RSA_2048),
        (curve, KeyType.EC, Algorithm.ED25519),
        (edwards, KeyType.EC_EDWARDS, Algorithm.P256),
        (curve, KeyType.EC_EDWARDS, Algorithm.ED25519),
        (Object(), KeyType.RSA, Algorithm.RSA_2048),
        (Object(), KeyType.EC, Algorithm.P256),
        (Object({Attribute.EC_POINT: encoded}), KeyType.EC, Algorithm.P256),
    ):
        with pytest.raises(KeyUnusableError):
            public_key(source, kind, algorithm)
