#include "ngx_module/conf/text.h"

#include <cstdarg>

namespace penstock {

ngx_str_t print(ngx_pool_t* pool, const char* format, ...) noexcept {
  u_char text[512];
  va_list args;
  va_start(args, format);
  const u_char* end = ngx_vslprintf(text, text + sizeof text, format, args);
  va_end(args);
  return copy(pool, {reinterpret_cast<char*>(text), static_cast<size_t>(end - text)});
}

}  // namespace penstock
