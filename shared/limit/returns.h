// Returns: when each of many who are refused at one place should come back.
//
// A place (a limit's counter, a full queue) has room again at some moment, and after that for one
// more each step. Were everybody told that moment, all would come at once, and all but one be
// refused again. So each who asks is given a time of its own, a step after the one given before.
// A caller that asks again before its time is told the same. So a caller that hammers moves nobody
// else back, and what was told stays true. A caller that is alone at a place is always told when
// there is room, even if that is sooner than it was told: it asks for less, or some was given back.
//
// Fixed memory, of one process: two who meet in the table forget the earlier's time, which is then
// given anew. `place` and `who` are hashes.
#pragma once

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

namespace penstock::limit {

class Returns {
 public:
  static constexpr size_t kTold = 4096;
  static constexpr size_t kPlaces = 256;

  // When `who` should come back: `earliest_ns`, which is later than now, or later still. Nobody is
  // told later than `latest_ns`: past it, times are given anew from `earliest_ns` on. Where so many
  // `processes` tell times for one place, each leaves the others theirs.
  int64_t tell(uint64_t place, uint64_t who, int64_t now_ns, int64_t earliest_ns, int64_t step_ns,
               int64_t latest_ns, int64_t processes = 1) noexcept {
    const int64_t most_ns = latest_ns - now_ns;
    step_ns = step_ns > most_ns / processes ? most_ns : step_ns * processes;
    Time& mine = told_[mix(place ^ who * kOdd) % kTold];
    Place& last = last_[mix(place) % kPlaces];
    const uint64_t key = place + who;
    const bool told = mine.key == key && mine.at_ns > now_ns && mine.at_ns <= latest_ns;
    const bool follows = last.key == place && last.at_ns > now_ns;
    if (follows ? last.only == who : !told || mine.alone) {
      last = {place, earliest_ns, who};
      mine = {key, earliest_ns, true};
      return earliest_ns;
    }
    if (told) {
      return mine.at_ns = std::max(mine.at_ns, earliest_ns);
    }
    const bool is_past = last.at_ns > latest_ns - step_ns;
    const int64_t at_ns = is_past ? earliest_ns : std::max(earliest_ns, last.at_ns + step_ns);
    last = {place, at_ns, 0};
    mine = {key, at_ns, false};
    return at_ns;
  }

 private:
  static constexpr uint64_t kOdd = 0x9E3779B97F4A7C15;
  static constexpr size_t mix(uint64_t hash) noexcept { return hash * kOdd >> 40; }
  struct Time {
    uint64_t key = 0;
    int64_t at_ns = 0;
    bool alone = true;  // nobody else had been told a time at the place
  };
  struct Place {
    uint64_t key = 0;
    int64_t at_ns = 0;  // the last told
    uint64_t only = 0;  // who alone was told any; 0: several were
  };
  std::array<Time, kTold> told_{};
  std::array<Place, kPlaces> last_{};
};

}  // namespace penstock::limit
