// The filter that sees each piece of a request's body before it is kept or spooled, whoever reads
// it.
#pragma once

namespace penstock {

// Puts it among those that request bodies go through.
void install_body_filter() noexcept;

}  // namespace penstock
