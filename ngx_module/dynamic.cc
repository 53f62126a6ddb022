// What Nginx's own build would write for a dynamic module (auto/module), where it is not that which
// builds it: the list of modules, and the place among the filters.
#include "ngx_module/nginx.h"

extern "C" {

__attribute__((visibility("default"))) extern ngx_module_t* ngx_modules[];
__attribute__((visibility("default"))) extern char* ngx_module_names[];
__attribute__((visibility("default"))) extern char* ngx_module_order[];

ngx_module_t* ngx_modules[] = {&ngx_http_penstock_module, nullptr};
char* ngx_module_names[] = {const_cast<char*>("ngx_http_penstock_module"), nullptr};
char* ngx_module_order[] = {const_cast<char*>("ngx_http_penstock_module"),
                            const_cast<char*>("ngx_http_copy_filter_module"), nullptr};
}
