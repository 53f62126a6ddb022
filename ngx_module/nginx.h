// The only door to Nginx's headers: C headers wrapped for C++, warnings of theirs kept out, and the
// few conversions that every file here needs. Included before anything else.
//
// No exception can cross into Nginx: the module is compiled with -fno-exceptions, and it and the
// shared code that it uses throw none. Requests take memory from pools only. What keeps a zone in a
// file (zone/memory, zone/snapshot, zone/store) takes from the heap too, when Nginx starts and in
// the cache manager, and so does what reads the keys that were issued when their file has changed:
// where there is no memory left, that process ends, as it does by Nginx's own means.
#pragma once

extern "C" {
#include <ngx_config.h>
// After ngx_config.h, in this order.
#include <ngx_core.h>
#include <ngx_http.h>
}

#include <algorithm>
#include <cstdint>
#include <new>
#include <string_view>
#include <type_traits>

extern "C" ngx_module_t ngx_http_penstock_module;

namespace penstock {

inline std::string_view view(const ngx_str_t& s) noexcept {
  return {reinterpret_cast<const char*>(s.data), s.len};
}

inline ngx_str_t str(std::string_view s) noexcept {
  return {s.size(), reinterpret_cast<u_char*>(const_cast<char*>(s.data()))};
}

// A copy in the pool; data is nullptr when the pool is exhausted.
inline ngx_str_t copy(ngx_pool_t* pool, std::string_view s) noexcept {
  ngx_str_t out{s.size(), static_cast<u_char*>(ngx_pnalloc(pool, s.size() + 1))};
  if (out.data != nullptr) {
    *std::copy(s.begin(), s.end(), out.data) = '\0';
  }
  return out;
}

// An object in a pool, which frees the memory but runs no destructor.
template <typename T>
T* make(ngx_pool_t* pool) noexcept {
  static_assert(std::is_trivially_destructible_v<T>);
  void* memory = ngx_palloc(pool, sizeof(T));
  return memory == nullptr ? nullptr : new (memory) T();
}

// A growing list in a pool.
template <typename T>
class PoolArray {
 public:
  static_assert(std::is_trivially_copyable_v<T>);
  T* push(ngx_pool_t* pool, const T& item) noexcept {
    if (array_ == nullptr) {
      array_ = ngx_array_create(pool, 4, sizeof(T));  // NOLINT(bugprone-sizeof-expression)
    }
    void* place = array_ == nullptr ? nullptr : ngx_array_push(array_);
    return place == nullptr ? nullptr : new (place) T(item);
  }
  T* begin() const noexcept { return array_ == nullptr ? nullptr : static_cast<T*>(array_->elts); }
  T* end() const noexcept { return begin() + size(); }
  size_t size() const noexcept { return array_ == nullptr ? 0 : array_->nelts; }
  bool empty() const noexcept { return size() == 0; }
  T& operator[](size_t i) const noexcept { return begin()[i]; }

 private:
  ngx_array_t* array_ = nullptr;
};

// Visits the items of one of Nginx's lists until visit(item) says false; returns whether none has.
template <typename T, class Visit>
bool each_of(const ngx_list_t& list, const Visit& visit) noexcept {
  for (const ngx_list_part_t* part = &list.part; part != nullptr; part = part->next) {
    const auto* items = static_cast<const T*>(part->elts);
    for (ngx_uint_t i = 0; i < part->nelts; ++i) {
      if (!visit(items[i])) {
        return false;
      }
    }
  }
  return true;
}

inline std::string_view lower_name(const ngx_table_elt_t& header) noexcept {
  return {reinterpret_cast<const char*>(header.lowcase_key), header.key.len};
}

}  // namespace penstock
