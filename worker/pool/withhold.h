// What others say of a job, for the log: without what the job asked, and without keys. A server's
// complaint often quotes the request that it is about.
//
//     withhold("bad value 'my dear diary, today I'", {body}) == "bad value '[withheld]'"
//
// Pure. O(bytes of both): each is looked through once.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace penstock {

// So many bytes in a row that also stand in a secret are no coincidence. Fewer are told.
constexpr size_t kWithheldBytes = 12;
// Of secrets that are longer together, all of `said` is withheld: to look takes too long.
constexpr size_t kMostSecretBytes = size_t{4} << 20;
// Of `said`; what is more is cut.
constexpr size_t kMostSaidBytes = 2000;

// Escapes as in JSON count as what they mean, in both; `said` comes back without them, as one line.
std::string withhold(std::string_view said, const std::vector<std::string_view>& secrets);

}  // namespace penstock
