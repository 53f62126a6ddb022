// Which content types a browser may show where it finds them: those that can run nothing, whatever
// the bytes are. All others go out as attachments. Source of the rules for reading a type: WHATWG
// Fetch, "extract a MIME type", and MIME Sniffing.
#pragma once

#include <string_view>

namespace penstock::http {

// `content_type` is the header's value, such as "text/plain; charset=utf-8". Text, JSON, pictures,
// sound and films of the usual kinds, and PDF are inert. A value that readers may take for two is
// not: behind a comma a browser reads another type.
bool is_inert_type(std::string_view content_type) noexcept;
// One of these that is a picture.
bool is_inert_picture(std::string_view content_type) noexcept;

}  // namespace penstock::http
