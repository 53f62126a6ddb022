// The scripts that keep a queue's order in Redis, as they are in scripts/: each says there what it
// takes and answers.
#pragma once

#include <span>
#include <string_view>

#include "shared/redis/scripts.h"

namespace penstock::queue::order_script {

using redis::Script;
constexpr Script kAdd{1}, kServe{2}, kBack{3}, kCancel{4}, kAdvance{5}, kPosition{6}, kRenew{7},
    kReap{8}, kPause{9}, kLook{10}, kHeld{11}, kSay{12}, kKeep{13}, kKept{14}, kRoster{15},
    kStates{16}, kMend{17}, kNote{18}, kStale{19}, kTell{20}, kEnding{21}, kTold{22}, kList{23},
    kSweep{24}, kEvent{25}, kBody{26}, kDrop{27}, kEarlier{28}, kCharge{29}, kSettle{30},
    kInherit{31};

// Part of each key: what another version of the scripts has put there is not met.
constexpr char kLayout[] = "q1";

// For redis::Settings; the first is the roster's.
std::span<const std::string_view> all() noexcept;

}  // namespace penstock::queue::order_script
