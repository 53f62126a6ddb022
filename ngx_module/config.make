# Nginx's ./configure appends this to its Makefile.
cat <<END >>$NGX_MAKEFILE

$NGX_OBJS/nginx $NGX_OBJS/ngx_http_penstock_module.so:	penstock

.PHONY:	penstock
penstock:	$NGX_OBJS/ngx_auto_config.h
	cmake -S $ngx_addon_dir/.. -B $NGX_OBJS/penstock -DNGINX_SRC=$PWD -DPENSTOCK_NGINX_OBJS=$PWD/$NGX_OBJS
	cmake --build $NGX_OBJS/penstock --target ngx_http_penstock_module

END
