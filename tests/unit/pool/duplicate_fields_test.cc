// The edge and the engines read the same body; which of several fields of one name counts must be
// the same for both, or a caller is charged for one request and served another.
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "shared/http/body_fields.h"
#include "worker/pool/openai.h"

namespace penstock::openai {
namespace {

constexpr std::string_view kNames[] = {"max_tokens", "seed", "stream", "model"};

class RandomBody {
 public:
  explicit RandomBody(uint32_t seed) : random_(seed) {}

  // An object in which names come several times, with values that are right, wrong, or null.
  std::string text() {
    std::string body = "{\"prompt\":\"x\"";
    for (int left = pick(12); left > 0; --left) {
      body += space() + "," + space() + name() + space() + ":" + space() + value(0);
    }
    return body + space() + "}";
  }

 private:
  int pick(int many) { return static_cast<int>(random_() % static_cast<uint32_t>(many)); }
  std::string space() { return std::string(static_cast<size_t>(pick(8) == 0), "\n\t "[pick(3)]); }
  std::string name() {
    static const char* const kWritten[] = {
        "max_tokens", "m\\u0061x_tokens", "seed", "s\\u0065ed", "stream",
        "model",      "mod\\u0065l",      "user"};
    return "\"" + std::string(kWritten[pick(8)]) + "\"";
  }
  std::string value(int depth) {
    switch (pick(depth < 3 ? 9 : 7)) {
      case 0:
        return "null";
      case 1:
        return pick(2) == 0 ? "true" : "false";
      case 2:
        return "\"" + std::string(pick(2) == 0 ? "m" : "\\\"}],\\\\") + "\"";
      case 7:
        return "[" + value(depth + 1) + "," + value(depth + 1) + "]";
      case 8:
        return "{" + name() + ":" + value(depth + 1) + "," + name() + ":" + value(depth + 1) + "}";
      default:
        return std::to_string(pick(100));
    }
  }
  std::mt19937 random_;
};

using Type = http::BodyField::Type;

// What the engine must have read of a field, if the edge read this.
void expect_same(const http::BodyField& edge, std::optional<uint64_t> engine) {
  if (edge.type == Type::kMissing || edge.type == Type::kNull) {
    EXPECT_EQ(engine, std::nullopt);
  } else {
    EXPECT_EQ(edge.type, Type::kNumber);
    EXPECT_EQ(engine, static_cast<uint64_t>(http::number_of(edge)));
  }
}

TEST(DuplicateFieldsTest, TheEdgeAndTheEnginesGoByTheSameOne) {
  int served = 0;
  for (uint32_t seed = 0; seed < 20'000; ++seed) {
    const std::string body = RandomBody(seed).text();
    http::BodyFields edge(kNames);
    EXPECT_TRUE(edge.feed(body));
    const Parsed parsed = parse({.method = "POST", .path = "/v1/completions", .body = body});
    if (const auto* failure = std::get_if<Failure>(&parsed)) {
      EXPECT_NE(failure->param, "") << body << "\n  " << failure->message;
      for (size_t i = 0; i < std::size(kNames); ++i) {  // the edge's value is what is wrong with it
        const Type type = edge[i].type;
        EXPECT_TRUE(failure->param != kNames[i] || (type != Type::kMissing && type != Type::kNull))
            << body;
      }
      continue;
    }
    ++served;
    const auto& request = std::get<CompletionRequest>(parsed);
    expect_same(edge[0], request.max_tokens);
    expect_same(edge[1], request.seed);
    EXPECT_EQ(request.stream, edge[2].text == "true") << body;
    ASSERT_FALSE(HasFailure()) << body;
  }
  EXPECT_GT(served, 1000);
}

}  // namespace
}  // namespace penstock::openai
