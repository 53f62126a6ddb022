"""$penstock_net: whom an address is of."""

import pytest

REALIP = "set_real_ip_from 127.0.0.1; real_ip_header X-Real-IP;"


@pytest.mark.parametrize("address, net", [
    ("192.0.2.17", "192.0.2.17"),
    ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
    ("2001:db8:1:2:ffff::1", "2001:db8:1:2::/64"),
    ("2001:db8:0:1::", "2001:db8:0:1::/64"),
    ("::1", "::/64"),
    ("::ffff:192.0.2.17", "192.0.2.17"),
])
def test_the_net_is_the_ipv4_address_or_the_64_of_an_ipv6_one_after_realip(penstock, address, net):
    service = penstock(server=REALIP + 'location / { return 200 "$penstock_net"; }')
    assert service.get("/", X_Real_IP=address).text() == net


def test_addresses_of_one_64_are_one_key_and_of_two_they_are_two(penstock):
    service = penstock(http="penstock_zone edge 1m;",
                       server=REALIP + "location / { penstock_limit zone=edge key=$penstock_net rate=1r/h name=net; empty_gif; }")
    asked = ("2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1", "::ffff:192.0.2.1")
    assert [service.get("/", X_Real_IP=address).status for address in asked] == [200, 429, 200, 200, 429]


def test_who_comes_over_a_unix_socket_is_one_caller(penstock):
    service = penstock(start=False)
    path = service.folder / "edge.sock"
    config = service.configuration("penstock_zone edge 1m;", f"""
        location / {{ proxy_pass http://unix:{path}:; }}
    }}
    server {{
        listen unix:{path};
        location / {{ penstock_limit zone=edge key=$penstock_net rate=1r/h name=net; return 200 "$penstock_net"; }}
    """)
    service.nginx.write_config(config)
    service.start()
    assert service.get("/").text() == "unix:"
