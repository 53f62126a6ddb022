#include "shared/http/inert_type.h"

#include <algorithm>

#include "shared/http/header_lines.h"

namespace penstock::http {
namespace {

constexpr std::string_view kInert[] = {
    "text/plain", "application/json", "application/pdf",
    // pictures
    "image/png", "image/jpeg", "image/webp", "image/gif", "image/avif",
    // films and sounds, each under the names in use
    "video/mp4", "audio/mp4", "video/webm", "audio/webm", "video/ogg", "audio/ogg", "audio/wav",
    "audio/wave", "audio/x-wav", "audio/vnd.wave", "audio/mpeg", "audio/mp3"};

}  // namespace

bool is_inert_type(std::string_view content_type) noexcept {
  constexpr std::string_view kBlank = " \t";
  if (content_type.find(',') != std::string_view::npos) {
    return false;
  }
  std::string_view name = content_type.substr(0, content_type.find(';'));
  name.remove_prefix(std::min(name.find_first_not_of(kBlank), name.size()));
  name = name.substr(0, name.find_last_not_of(kBlank) + 1);
  return std::any_of(std::begin(kInert), std::end(kInert),
                     [&](std::string_view inert) { return same_name(inert, name); });
}

bool is_inert_picture(std::string_view content_type) noexcept {
  constexpr std::string_view kPicture = "image/";
  return same_name(content_type.substr(0, kPicture.size()), kPicture) &&
         is_inert_type(content_type);
}

}  // namespace penstock::http
