#include "shared/challenge/challenge.h"

#include <gtest/gtest.h>
#include <openssl/evp.h>

#include <set>
#include <string>

#include "shared/challenge/solution.h"

namespace penstock::challenge {
namespace {

constexpr int64_t kNow = 1'800'000'000;

std::string base64(const std::string& bytes) {
  std::string text((bytes.size() + 2) / 3 * 4 + 1, '\0');
  text.resize(static_cast<size_t>(EVP_EncodeBlock(
      reinterpret_cast<unsigned char*>(text.data()),
      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()))));
  return text;
}

// The value of a member, as it is written: of a string without its quotes.
std::string member(const std::string& json, const std::string& name) {
  size_t at = json.find('"' + name + "\":") + name.size() + 3;
  at += json[at] == '"' ? 1 : 0;
  return json.substr(at, json.find_first_of("\",}", at) - at);
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from << " in " << text;
  return text.replace(at, from.size(), to);
}

std::string hex(std::span<const uint8_t> bytes) {
  std::string digits(2 * bytes.size(), '\0');
  write_hex(bytes, digits.data());
  return digits;
}

class ChallengeTest : public testing::TestWithParam<Format> {
 protected:
  std::string issue(int level = 1) {
    for (uint8_t& byte : random_) {
      byte = ++seed_;
    }
    return std::string(write_challenge(keys_, GetParam(), level, holder_, random_, kNow).view());
  }
  // What a widget makes of a challenge, as JSON.
  static std::string solve(const std::string& challenge) {
    if (GetParam() == Format::kSha256) {
      const std::string salt = member(challenge, "salt");
      uint64_t n = 0;
      while (hex(number_digest(salt, n)) != member(challenge, "challenge")) {
        ++n;
      }
      return R"({"algorithm":"SHA-256","challenge":")" + member(challenge, "challenge") +
             R"(","number":)" + std::to_string(n) + R"(,"salt":")" + salt + R"(","signature":")" +
             member(challenge, "signature") + R"(","took":12})";
    }
    Parameters p;
    p.cost = static_cast<uint32_t>(std::stoul(member(challenge, "cost")));
    EXPECT_TRUE(read_hex(member(challenge, "nonce"), p.nonce));
    EXPECT_TRUE(read_hex(member(challenge, "salt"), p.salt));
    uint32_t counter = 0;
    while (!hex(derive_key(p, counter)).starts_with(member(challenge, "keyPrefix"))) {
      ++counter;
    }
    return R"({"challenge":)" + challenge + R"(,"solution":{"counter":)" + std::to_string(counter) +
           R"(,"derivedKey":")" + hex(derive_key(p, counter)) + R"(","time":1.5}})";
  }
  bool passes(const std::string& json, int64_t now_s = kNow) const {
    const auto solution = read_solution(base64(json));
    return solution && is_ours(keys_, *solution, holder_, now_s) && is_solved(keys_, *solution);
  }
  static bool is_read(const std::string& json) { return read_solution(base64(json)).has_value(); }

  const Keys keys_ = make_keys("a secret of thirty-two random bytes");
  const Holder holder_ = make_holder(keys_, "ip", "192.0.2.1");
  Random random_{};
  uint8_t seed_ = 0;
};

std::string name_of(const testing::TestParamInfo<Format>& of) {
  return of.param == Format::kSha256   ? "Sha256"
         : of.param == Format::kPbkdf2 ? "Pbkdf2"
                                       : "Pbkdf2Prefix";
}

INSTANTIATE_TEST_SUITE_P(All, ChallengeTest,
                         testing::Values(Format::kSha256, Format::kPbkdf2, Format::kPbkdf2Prefix),
                         name_of);

TEST_P(ChallengeTest, WhoSolvesItPasses) {
  for (int i = 0; i < 3; ++i) {
    EXPECT_TRUE(passes(solve(issue())));
  }
}

TEST_P(ChallengeTest, ItIsGoodForFiveMinutes) {
  const std::string solved = solve(issue());
  EXPECT_TRUE(passes(solved, kNow + kLifeSeconds));
  EXPECT_FALSE(passes(solved, kNow + kLifeSeconds + 1));
  EXPECT_TRUE(passes(solved, kNow - kClockSkewSeconds));
  EXPECT_FALSE(passes(solved, kNow - kClockSkewSeconds - 1));
}

TEST_P(ChallengeTest, ItIsForOneHolder) {
  const auto solution = read_solution(base64(solve(issue())));
  ASSERT_TRUE(solution);
  EXPECT_TRUE(is_ours(keys_, *solution, holder_, kNow));
  EXPECT_FALSE(is_ours(keys_, *solution, make_holder(keys_, "ip", "192.0.2.2"), kNow));
  EXPECT_FALSE(is_ours(keys_, *solution, make_holder(keys_, "key", "192.0.2.1"), kNow));
  EXPECT_FALSE(is_ours(make_keys("another secret"), *solution, holder_, kNow));
}

TEST_P(ChallengeTest, EveryMemberCounts) {
  const std::string solved = solve(issue());
  int changed = 0;
  for (size_t i = 0; i < solved.size(); ++i) {
    if (const char c = solved[i]; c >= '0' && c <= '9') {
      std::string other = solved;
      other[i] = c == '9' ? '8' : static_cast<char>(c + 1);
      const bool told_only = other.find("\"took\":12") == std::string::npos &&
                             other.find("\"time\":1.5") == std::string::npos;
      // Where the key is signed, or is found out again, the caller's word of it has no meaning.
      const auto ours = read_solution(base64(solved));
      const auto read = read_solution(base64(other));
      const bool unread = read && (GetParam() == Format::kPbkdf2 ? read->counter != ours->counter
                                   : GetParam() == Format::kPbkdf2Prefix ? read->key != ours->key
                                                                         : false);
      EXPECT_EQ(passes(other), told_only || unread) << other;
      ++changed;
    }
  }
  EXPECT_GT(changed, 50);
}

TEST_P(ChallengeTest, AnOrderAndSpacesOfTheCallersAreRead) {
  const std::string solved = solve(issue());
  std::string spaced;
  for (const char c : solved) {
    spaced += c;
    spaced += c == ',' || c == ':' || c == '{' ? " \n" : "";
  }
  EXPECT_TRUE(passes(spaced));
  // Of version 2 within its parameters.
  const char* const name = GetParam() == Format::kSha256 ? "signature" : "nonce";
  const std::string moved = '"' + std::string(name) + "\":\"" + member(solved, name) + "\",";
  EXPECT_TRUE(
      passes(replaced(replaced(solved, moved, ""), "\"algorithm\"", moved + "\"algorithm\"")));
}

TEST_P(ChallengeTest, OneReadingOnlyIsPossible) {
  const std::string solved = solve(issue());
  ASSERT_TRUE(is_read(solved));
  EXPECT_FALSE(is_read(solved + "x"));
  EXPECT_FALSE(is_read(solved + "{}"));
  EXPECT_FALSE(is_read(solved.substr(0, solved.size() - 1)));
  EXPECT_FALSE(is_read(replaced(solved, "{", "{\"x\":1,")));
  EXPECT_FALSE(is_read(replaced(solved, "{", "{\"took\":1,\"took\":2,")));
  EXPECT_FALSE(is_read(replaced(solved, "SHA-256", "SHA-512")));
  EXPECT_FALSE(is_read(replaced(solved, "SHA-256", "SHA\\u002d256")));
  for (const char* const name : {"algorithm", "challenge", "salt", "signature"}) {
    EXPECT_FALSE(is_read(replaced(solved, name, "another"))) << name;
  }
  const std::string number = GetParam() == Format::kSha256 ? "\"number\":" : "\"counter\":";
  for (const char* const before : {"-", "+", "0", "1.", "\"", "99999999999999999999"}) {
    if (member(solved, number.substr(1, number.size() - 3)) != "0" || *before != '-') {
      EXPECT_FALSE(is_read(replaced(solved, number, number + before))) << before;
    }
  }
}

TEST_P(ChallengeTest, ALevelIsFourTimesTheFirstAtLeast) {
  issue();
  const std::string challenge = issue(4);
  if (GetParam() == Format::kSha256) {
    EXPECT_EQ(member(challenge, "maxnumber"), "200000");
  } else if (GetParam() == Format::kPbkdf2) {
    EXPECT_EQ(member(challenge, "cost"), "1000");
  } else {
    EXPECT_EQ(member(challenge, "keyPrefix").size(), 4u);
  }
}

TEST_P(ChallengeTest, APassIsTheSameEachTime) {
  const auto solution = read_solution(base64(solve(issue())));
  ASSERT_TRUE(solution);
  const Pass pass = pass_for(*solution, 3600);
  EXPECT_EQ(pass.issued_s, kNow);
  EXPECT_EQ(pass.holder, holder_);
  EXPECT_EQ(write_pass(keys_, pass).view(), write_pass(keys_, pass_for(*solution, 3600)).view());
}

class Version1Test : public ChallengeTest {};
INSTANTIATE_TEST_SUITE_P(All, Version1Test, testing::Values(Format::kSha256));

// CVE-2025-68113: SHA-256(salt n) is the same where digits move between them.
TEST_P(Version1Test, DigitsCannotMoveFromTheNumberIntoTheTime) {
  const std::string solved = solve(issue());
  const std::string number = member(solved, "number");
  const std::string spliced =
      replaced(replaced(solved, "\"number\":" + number, "\"number\":" + number.substr(1)), "&\"",
               "&" + number.substr(0, 1) + "\"");
  EXPECT_FALSE(is_read(spliced));
  EXPECT_FALSE(is_read(replaced(solved, "&\"", "\"")));  // the closing "&" cut off
  EXPECT_FALSE(is_read(replaced(solved, "?expires=", "?expires=0")));
  EXPECT_FALSE(is_read(replaced(solved, "&l=", "&x=1&l=")));
}

TEST_P(Version1Test, NumbersComeFromTheWholeRange) {
  int low = 0;
  constexpr int kAll = 16;
  for (int i = 0; i < kAll; ++i) {
    low += std::stoi(member(solve(issue()), "number")) < 12'500 ? 1 : 0;
  }
  EXPECT_GT(low, 2);
  EXPECT_LT(low, kAll - 2);
}

TEST(PayloadTest, AnythingElseIsNothing) {
  EXPECT_FALSE(read_solution(""));
  EXPECT_FALSE(read_solution("e30="));  // {}
  EXPECT_FALSE(read_solution("not base 64"));
  EXPECT_FALSE(read_solution(base64("[]")));
  EXPECT_FALSE(read_solution(std::string(kMostPayloadBytes + 4, 'A')));
}

TEST(Pbkdf2Test, AgreesWithAnotherImplementation) {
  // python3 -c 'import hashlib; print(hashlib.pbkdf2_hmac("sha256", b"password", b"salt",
  // 2).hex())'
  EXPECT_EQ(hex(pbkdf2("password", "salt", 2)),
            "ae4d0c95af6b46d32d0adff928f06dd02a303f8ef3c251dfd6e2d85a95474c43");
}

TEST(DigestTest, WhatFailsIsLikeNothing) {
  EXPECT_TRUE(can_digest());
  std::set<Digest> made;
  for (int i = 0; i < 8; ++i) {
    made.insert(pbkdf2("a", "b", 0));  // libcrypto makes no key in no rounds
  }
  EXPECT_EQ(made.size(), 8u);
}

}  // namespace
}  // namespace penstock::challenge
