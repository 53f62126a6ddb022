// The paths of BasicTable that every request takes: where a key is, and the claim of its slot.
#pragma once

#include "shared/limit/table.h"

namespace penstock::limit {

// The key's slot in one line, if it is there.
template <class Sync>
[[gnu::always_inline]] inline bool BasicTable<Sync>::find_in(Line* at, uint64_t want,
                                                             Ref& ref) noexcept {
  // Which of the four it is nobody can foretell: picked without a branch.
  static_assert(kSlotsPerLine == 4);
  Slot* const slots = at->slots;
  const bool in[] = {load(slots[0].key) == want, load(slots[1].key) == want,
                     load(slots[2].key) == want, load(slots[3].key) == want};
  if (!(in[0] | in[1] | in[2] | in[3])) {
    return false;
  }
  Slot& slot = slots[in[0] ? 0 : 3 - 2 * in[1] - (in[2] & !in[1])];
  const uint64_t state = load(slot.state);
  if (load(slot.key) != want) {
    return false;  // it has just gone, and a claim looks at all places anew
  }
  ref.set(&slot, want, state);
  Sync::at(Point::found);
  return true;
}

template <class Sync>
[[gnu::always_inline]] inline bool BasicTable<Sync>::find_first(const Hash128& hash, Mark mark,
                                                                Ref& ref) const noexcept {
  return find_in(first_line(hash), key_word(hash, mark), ref);
}

template <class Sync>
auto BasicTable<Sync>::claim(const Hash128& hash, Mark mark_of_key, const Instant& now,
                             Ref& ref) noexcept -> ClaimResult {
  const Home home = home_of(hash);
  const uint64_t want = key_word(hash, mark_of_key);
  for (unsigned attempt = 0;; ++attempt) {
    Slot* slot = nullptr;
    Slot seen;
    if (!choose(home, mark_of_key.lasts(), now, slot, seen)) {
      if (find(hash, mark_of_key, ref)) {
        return ClaimResult::exists;  // perhaps the last free slot was just taken for this very key
      }
      __atomic_fetch_add(&header_->full, 1, __ATOMIC_RELAXED);
      return ClaimResult::full;
    }
    give_up(seen, now);
    const uint64_t number = __atomic_add_fetch(&header_->claims, 1, __ATOMIC_RELAXED);
    const Slot mark{pending_word(hash), number};
    Sync::at(Point::before_claim);
    if (cas(slot, seen, mark)) {
      if (is_key(kind_of(seen.key))) {
        __atomic_fetch_add(is_idle(seen, now) ? &header_->evicted : &header_->given_away, 1,
                           __ATOMIC_RELAXED);
      }
      Sync::at(Point::claimed);
      switch (check_alone(home, want, slot, ref)) {
        case Check::exists:
          cas(slot, mark, vacated());
          return ClaimResult::exists;
        case Check::alone:
          Sync::at(Point::checked);
          ref = {slot, mark.key, mark.state, want,
                 mark_of_key.kind() == Kind::gcra ? load(header_->floor) : 0};
          return ClaimResult::mine;
        case Check::again:
          break;
      }
      cas(slot, mark, vacated());
    }
    back_off(attempt, number);
    if (find(hash, mark_of_key, ref)) {
      return ClaimResult::exists;
    }
  }
}

// The second step of (3), after `mine` was marked pending.
template <class Sync>
auto BasicTable<Sync>::check_alone(const Home& home, uint64_t want, const Slot* mine,
                                   Ref& ref) noexcept -> Check {
  const uint64_t want_pending = (want & kHashMask) | static_cast<uint64_t>(Kind::pending);
  for (unsigned pair = 0; pair < kPairs; ++pair) {
    bool open = false;
    for (unsigned side = 0; side < 2; ++side) {
      for (Slot& slot : line(home, pair, side)->slots) {
        const uint64_t key = load(slot.key);
        open |= key == 0;
        if (&slot == mine || (key != want_pending && !is_of(key, want))) {
          continue;
        }
        const uint64_t state = load(slot.state);
        if (key != want_pending) {
          ref = {&slot, key, state, want, state};
          return load(slot.key) == key ? Check::exists : Check::again;
        }
        if (!cas(&slot, {key, state}, vacated())) {
          return Check::again;  // it has just become live, or moved on: look at everything anew
        }
      }
    }
    if (open) {
      break;
    }
  }
  return Check::alone;
}

}  // namespace penstock::limit
