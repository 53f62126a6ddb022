#include "shared/wire/frame.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

#include "shared/wire/device_messages.h"
#include "shared/wire/messages.h"

namespace penstock::wire {
namespace {

Submit sample() {
  Submit m;
  m.queue = "video";
  m.model = "demo";
  m.owner = "Bearer x";
  m.priority = -3;
  m.weight = 4;
  m.method = "POST";
  m.path = "/v1/completions";
  m.body = "{\"prompt\":\"hi\"}";
  return m;
}

std::string encoded(uint64_t id, const Submit& m) {
  std::string out;
  append(out, id, m);
  return out;
}

TEST(FrameTest, ComesBackAsItWasSent) {
  const std::string bytes = encoded(42, sample());
  const Decoded decoded = decode(bytes, Limits{});
  ASSERT_EQ(decoded.kind, Decoded::kFrame);
  EXPECT_EQ(decoded.frame.header.type, FrameType::kSubmit);
  EXPECT_EQ(decoded.frame.header.id, 42U);
  EXPECT_EQ(decoded.consumed, bytes.size());
  Submit m;
  ASSERT_EQ(parse(decoded.frame.payload, m), nullptr);
  EXPECT_EQ(m.queue, "video");
  EXPECT_EQ(m.priority, -3);
  EXPECT_EQ(m.weight, 4U);
  EXPECT_EQ(m.tier, "");
  EXPECT_EQ(m.body, sample().body);
}

TEST(FrameTest, TheHeaplessEncoderWritesTheSameBytes) {
  const std::string expected = encoded(7, sample());
  ASSERT_EQ(encoded_size(sample()), expected.size());
  std::string out(expected.size(), '\0');
  EXPECT_EQ(encode(out.data(), 7, sample()), out.data() + out.size());
  EXPECT_EQ(out, expected);
}

TEST(FrameTest, FieldsWithHighTagsComeBackAndMayNotComeTwice) {
  std::string bytes;
  append(bytes, 0, Device{.index = 7, .uuid = "GPU-aa", .name = "H100", .power_mw = 650'000});
  const std::string_view payload = decode(bytes, Limits{}).frame.payload;
  Device device;
  ASSERT_EQ(parse(payload, device), nullptr);
  EXPECT_EQ(device.index, 7U);
  EXPECT_EQ(device.name, "H100");
  EXPECT_EQ(device.power_mw, 650'000U);
  EXPECT_STREQ(parse(std::string(payload) + std::string(payload), device), "a field comes twice");
}

TEST(FrameTest, EveryPrefixIsIncompleteAndSaysHowMuchIsNeeded) {
  const std::string bytes = encoded(1, sample());
  for (size_t n = 0; n < bytes.size(); ++n) {
    const Decoded decoded = decode(std::string_view(bytes).substr(0, n), Limits{});
    ASSERT_EQ(decoded.kind, Decoded::kIncomplete);
    EXPECT_EQ(decoded.needed, n < kHeaderBytes ? kHeaderBytes : bytes.size());
  }
}

TEST(FrameTest, LimitsAreJudgedFromTheHeaderAlone) {
  char header[kHeaderBytes];
  const Limits limits{.submit_bytes = 100, .other_bytes = 10};
  encode_header(header, FrameType::kSubmit, 1, 101);
  EXPECT_STREQ(decode({header, sizeof header}, limits).error, "payload over its limit");
  encode_header(header, FrameType::kChunk, 1, 11);
  EXPECT_STREQ(decode({header, sizeof header}, limits).error, "payload over its limit");
  encode_header(header, FrameType::kChunk, 1, 10);
  EXPECT_EQ(decode({header, sizeof header}, limits).kind, Decoded::kIncomplete);
}

TEST(FrameTest, UnknownTypesAndReservedBytesAreRefused) {
  char header[kHeaderBytes];
  for (const int type : {0, kLastFrameType + 1, 255}) {
    encode_header(header, static_cast<FrameType>(type), 1, 0);
    EXPECT_STREQ(decode({header, sizeof header}, Limits{}).error, "unknown frame type");
  }
  encode_header(header, FrameType::kCancel, 1, 0);
  for (const size_t at : {5, 6, 7}) {
    std::string bad(header, sizeof header);
    bad[at] = 1;
    EXPECT_STREQ(decode(bad, Limits{}).error, "reserved bytes are not zero");
  }
}

TEST(FieldTest, BrokenRulesAreNamed) {
  Submit m;
  std::string payload = encoded(1, sample()).substr(kHeaderBytes);
  EXPECT_STREQ(parse(std::string_view(payload).substr(0, 5), m),
               "field header past the end of the payload");
  EXPECT_STREQ(parse(std::string_view(payload).substr(0, payload.size() - 1), m),
               "field size past the end of the payload");
  EXPECT_STREQ(parse(payload + payload, m), "a field comes twice");
  char field[kFieldHeaderBytes + 3] = {};
  write_field_header(field, 10, 3);
  EXPECT_STREQ(parse({field, sizeof field}, m), "a number is not 8 bytes");
}

TEST(FieldTest, UnknownTagsAreSkipped) {
  char field[kFieldHeaderBytes + 3] = {};
  write_field_header(field, 4000, 3);
  std::string payload(field, sizeof field);
  payload += encoded(1, sample()).substr(kHeaderBytes);
  Submit m;
  ASSERT_EQ(parse(payload, m), nullptr);
  EXPECT_EQ(m.model, "demo");
}

TEST(ChunkTest, LongOnesAreSplitAtTheLimit) {
  const std::string text(2 * kMaxChunkBytes + 5, 'x');
  std::string out;
  append_chunk(out, 9, text);
  std::string joined;
  for (std::string_view rest = out; !rest.empty();) {
    const Decoded decoded = decode(rest, Limits{});
    ASSERT_EQ(decoded.kind, Decoded::kFrame);
    joined += decoded.frame.payload;
    rest.remove_prefix(decoded.consumed);
  }
  EXPECT_EQ(joined, text);
}

TEST(FrameTest, RandomBytesNeverReadPastTheirEnd) {
  std::mt19937 random(1);
  for (int round = 0; round < 20000; ++round) {
    std::string bytes(random() % 64, '\0');
    for (char& c : bytes) {
      c = static_cast<char>(random() % 4 == 0 ? random() : random() % 3);
    }
    const Decoded decoded = decode(bytes, Limits{.submit_bytes = 64, .other_bytes = 64});
    if (decoded.kind == Decoded::kFrame) {
      EXPECT_LE(decoded.consumed, bytes.size());
      Submit m;
      parse(decoded.frame.payload, m);
    }
  }
}

}  // namespace
}  // namespace penstock::wire
