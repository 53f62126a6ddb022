// The page's service worker. All it does is bring the page forward when a notice is chosen.

self.addEventListener("notificationclick", (event) => {
  event.notification.close();
  event.waitUntil((async () => {
    const pages = await self.clients.matchAll({ type: "window", includeUncontrolled: true });
    await (pages.length > 0 ? pages[0].focus() : self.clients.openWindow("/#tasks"));
  })());
});
