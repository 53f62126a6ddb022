// Shared secret: by which hosts of one Redis sign challenges and passes, so that each takes what
// another has signed. Redis has it, a random one that the first host made, and each host knows it
// (facts.h): a reload keeps it, and so does a Redis that comes back empty, as the first host puts
// it back. What a zone signs by hangs on its name, too, which hosts have alike. Until it is known,
// a host signs by a secret of its own; what that has signed stays good.
//
// A zone with a secret_file= has its secret there.
//
// It also tells one Redis from another: by it an edge knows what was charged in the very Redis that
// it shares itself (shared/wire/receipt.h).
#pragma once

#include "ngx_module/conf/conf.h"
#include "shared/redis/servers.h"

namespace penstock {

constexpr int64_t kSecretEveryNs = 5'000'000'000;  // Redis is asked so often, by each worker

// Asks Redis, without waiting, if the zone's secret is there.
void ask_secret(Zone& zone, redis::Servers& servers) noexcept;

// What the zone signs by, and takes, by all that this host knows now.
const ChallengeKeys& keys_of(Zone& zone) noexcept;

// By which what is charged in the zone's Redis is sealed; nullptr: that is not known yet.
const limit::Secret* seal_key_of(Zone& zone) noexcept;

}  // namespace penstock
