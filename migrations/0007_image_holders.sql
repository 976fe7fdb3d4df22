-- Which containers use an image is asked for every image that is listed.

create index containers_image on containers (image_id);
