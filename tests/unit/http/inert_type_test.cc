#include "shared/http/inert_type.h"

#include <gtest/gtest.h>

namespace penstock::http {
namespace {

TEST(InertTypeTest, TheListIsReadWithoutCaseAndParameters) {
  for (const std::string_view type :
       {"text/plain",     "Text/Plain",       "text/plain; charset=utf-8",
        " text/plain ;x", "application/json", "application/json;charset=utf-8",
        "image/png",      "image/jpeg",       "image/webp",
        "image/gif",      "image/avif",       "video/mp4",
        "audio/mp4",      "video/webm",       "audio/webm",
        "audio/wav",      "audio/x-wav",      "audio/mpeg",
        "audio/ogg",      "video/ogg",        "application/pdf"}) {
    EXPECT_TRUE(is_inert_type(type)) << type;
  }
}

TEST(InertTypeTest, WhatMayRunIsNot) {
  for (const std::string_view type : {"",
                                      ";",
                                      " ",
                                      "text/html",
                                      "TEXT/HTML; charset=utf-8",
                                      "application/xhtml+xml",
                                      "image/svg+xml",
                                      "text/xml",
                                      "application/xml",
                                      "text/javascript",
                                      "application/javascript",
                                      "text/css",
                                      "application/octet-stream",
                                      "application/x-shockwave-flash",
                                      "multipart/x-mixed-replace",
                                      "text/event-stream",
                                      "text",
                                      "text/plainx",
                                      "xtext/plain",
                                      "application/ld+json",
                                      "text /plain"}) {
    EXPECT_FALSE(is_inert_type(type)) << type;
  }
}

// "text/plain, text/html" is text/html to a browser, and so is what hides the comma in a parameter.
TEST(InertTypeTest, TwoTypesInOneAreNone) {
  for (const std::string_view type :
       {"text/plain, text/html", "text/plain;, text/html", "text/plain; a=\", text/html", ","}) {
    EXPECT_FALSE(is_inert_type(type)) << type;
  }
}

}  // namespace
}  // namespace penstock::http
