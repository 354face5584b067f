"""Addresses of keys in tokens, RFC 7512."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from privyseald.keyholder.token_uri import TokenUri

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


@given(TEXT, TEXT, TEXT.filter(bool), st.binary(max_size=20))
def test_what_is_written_is_read_again(token, serial, label, key_id):
    uri = TokenUri(token, serial, label, key_id)
    assert TokenUri.parse(str(uri)) == uri


def test_what_other_programs_write_is_read():
    """As p11tool and pkcs11-tool write them, with all that they know of the token."""
    uri = TokenUri.parse(
        "pkcs11:model=SoftHSM%20v2;manufacturer=SoftHSM%20project;serial=0a1b;token=updates;"
        "id=%01%ff;object=corp;type=private;x-vendor=whatever"
    )
    assert uri == TokenUri("updates", "0a1b", "corp", b"\x01\xff", "SoftHSM v2", "SoftHSM project")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("pkcs11:object=%ff", "not UTF-8"),
        ("pkcs11:object=%f", "malformed"),
        ("pkcs11:object=a;object=b", "malformed"),
        ("pkcs11:object", "malformed"),
        ("pkcs11:token=a", "by object or id"),
        ("pkcs11:object=a;type=cert", "by object or id"),
        ("pkcs11:object=a;slot-id=1", "slot-id, which is not supported"),
        ("pkcs11:object=a?pin-value=1", "must not have a query"),
        ("PKCS11:object=a", "must begin with"),
        ("pkcs11:object=" + "a" * 2000, "must begin with"),
    ],
)
def test_what_is_no_address_of_a_private_key_is_refused(text, says):
    with pytest.raises(ValueError, match=says):
        TokenUri.parse(text)
