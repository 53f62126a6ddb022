#include "shared/http/websocket.h"

#include <gtest/gtest.h>

#include <string>

namespace penstock::http {
namespace {

using Event = WebSocketReader::Event;

// A client's frame.
std::string frame(int first, const std::string& payload) {
  const std::string mask = "\x01\x02\x03\x04";
  std::string out(1, static_cast<char>(first));
  if (payload.size() < 126) {
    out += static_cast<char>(0x80 | payload.size());
  } else {
    out += static_cast<char>(0x80 | 126);
    out += static_cast<char>(payload.size() >> 8);
    out += static_cast<char>(payload.size() & 0xFF);
  }
  out += mask;
  for (size_t i = 0; i < payload.size(); ++i) {
    out += static_cast<char>(payload[i] ^ mask[i % 4]);
  }
  return out;
}

TEST(WebSocketTest, PingsAndClosesAreToldWhereverTheReadsCutThem) {
  const std::string all = frame(0x81, "hello") + frame(0x89, "are you there") +
                          frame(0x82, std::string(70000 % 60000, 'x')) + frame(0x89, "") +
                          frame(0x88, "\x03\xe8 bye");
  for (const size_t step : {size_t{1}, size_t{7}, all.size()}) {
    WebSocketReader reader;
    std::string told;
    for (size_t at = 0; at < all.size(); at += step) {
      std::string_view bytes = std::string_view(all).substr(at, step);
      for (Event event; (event = reader.next(bytes)) != Event::kMore;) {
        ASSERT_NE(event, Event::kBad);
        told += event == Event::kPing ? "ping(" : "close(";
        told += std::string(reader.payload()) + ")";
      }
      EXPECT_TRUE(bytes.empty());
    }
    EXPECT_EQ(told, "ping(are you there)ping()close(\x03\xe8)");
  }
}

TEST(WebSocketTest, ABrokenRuleIsBadAndStaysBad) {
  std::string unmasked = "\x89";
  unmasked += '\0';
  for (const std::string& bad :
       {unmasked + "abcd", frame(0x83, ""), frame(0xF1, ""), frame(0x09, "split"), frame(0x8B, ""),
        frame(0x89, std::string(126, 'x'))}) {
    WebSocketReader reader;
    std::string_view bytes = bad;
    EXPECT_EQ(reader.next(bytes), Event::kBad);
    std::string_view more = "more";
    EXPECT_EQ(reader.next(more), Event::kBad);
  }
}

TEST(WebSocketTest, AKeyIsSixteenBytesInBase64) {
  EXPECT_TRUE(is_websocket_key("dGhlIHNhbXBsZSBub25jZQ=="));
  EXPECT_FALSE(is_websocket_key("dGhlIHNhbXBsZSBub25jZQ="));
  EXPECT_FALSE(is_websocket_key("dGhlIHNhbXBsZSBub25jZQ\r\n"));
  EXPECT_FALSE(is_websocket_key(""));
}

TEST(WebSocketTest, AControlFrameIsShortAndUnmasked) {
  char out[WebSocketReader::kMaxControl + 2];
  EXPECT_EQ(std::string(out, write_control_frame(Opcode::kPong, "hi", out)), "\x8A\x02hi");
  EXPECT_EQ(write_control_frame(Opcode::kClose, "", out), 2U);
}

}  // namespace
}  // namespace penstock::http
