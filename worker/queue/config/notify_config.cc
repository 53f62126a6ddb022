#include "worker/queue/config/notify_config.h"

#include "worker/queue/text/json.h"

namespace penstock::queue {
namespace {

// https://url.spec.whatwg.org/#concept-urlencoded-serializer
void append_form(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789ABCDEF";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                       c == '*' || c == '-' || c == '.' || c == '_';
    if (plain) {
      out += c;
    } else if (c == ' ') {
      out += '+';
    } else {
      out.append({'%', kHex[byte >> 4], kHex[byte & 15]});
    }
  }
}

void append(std::string& out, std::string_view text, NoticeTemplate::As as) {
  switch (as) {
    case NoticeTemplate::As::kJsonText:
      return http::append_json(out, text);
    case NoticeTemplate::As::kForm:
      return append_form(out, text);
    default:
      out += text;
  }
}

}  // namespace

void NoticeTemplate::text(std::string_view text, As as) {
  std::string fits;
  append(fits, text, as);
  if (!pieces_.empty() && pieces_.back().as == As::kLiteral) {
    pieces_.back().text += fits;
  } else {
    pieces_.push_back({std::move(fits), 0, As::kLiteral});
  }
}

std::string NoticeTemplate::fill(const NoticeFields& fields) const {
  std::string out;
  for (const Piece& piece : pieces_) {
    if (piece.as == As::kLiteral) {
      out += piece.text;
      continue;
    }
    const std::string& value = fields[piece.field];
    if (piece.as != As::kJsonValue) {
      append(out, value, piece.as);
    } else if (value.empty()) {
      out += "null";
    } else {
      out += is_number(piece.field) ? value : json_string(value);
    }
  }
  return out;
}

}  // namespace penstock::queue
